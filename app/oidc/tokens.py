"""Signed tokens of an identity provider: their signature by its keys, then what they claim.

Only the algorithms of the settings count, never the header's word: neither `none` nor a shared key can be chosen by whoever
made a token, and keys that a token brings along are not looked at.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key
from joserfc.jws import JWSRegistry

from app import clock
from app.oidc.errors import SignInFailed

LONGEST = 64 * 1024
LEEWAY_S = 60  # how far the provider's clock may be from ours
OLDEST_S = 600  # how long ago an ID token may have been issued: it comes from the exchange itself
OLDEST_LOGOUT_S = 300
MOST_KEYS = 50
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

Claims = dict[str, Any]


class _Registry(JWSRegistry):
    """Some providers put their certificates into a token's header."""

    max_header_length = 16 * 1024


KeysOf = Callable[[bool], Sequence[Key]]  # the provider's keys, asked for anew if it is told so


def import_keys(document: object) -> list[Key]:
    """The keys of a JWK set that can check signatures; those of kinds that we do not know are left out."""
    listed = document.get("keys") if isinstance(document, dict) else None
    found = []
    for entry in listed[:MOST_KEYS] if isinstance(listed, list) else ():
        if isinstance(entry, dict) and entry.get("use", "sig") == "sig" and entry.get("kty") != "oct":
            try:
                found.append(JWKRegistry.import_key(entry))
            except (JoseError, ValueError, TypeError, KeyError):
                continue
    return found


def verified(text: object, keys_of: KeysOf, algorithms: Collection[str]) -> Claims:
    """The claims of a token whose signature is right. Raises `SignInFailed`."""
    header = _header(text)
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in algorithms:
        raise _bad("algorithm", "Its token is signed by an algorithm that is not allowed here.")
    assert isinstance(text, str)
    registry = _Registry(algorithms=list(algorithms), strict_check_header=False)
    for anew in (False, True):  # a key that is not there yet is how a provider's new key announces itself
        fitting = [
            key
            for key in keys_of(anew)
            if (kid is None or key.kid == kid) and key.alg in (None, algorithm)
        ]  # fmt: skip
        for key in fitting:
            try:
                return dict(jwt.decode(text, key, registry=registry).claims)
            except (JoseError, ValueError, TypeError, RecursionError):
                continue
        if fitting and kid is not None:
            break
    raise _bad("signature", "The signature of its token is wrong.")


def check_id_token(
    claims: Claims, *, issuer: str, client_id: str, nonce: str, access_token: str | None, algorithm: str
) -> None:
    """Raises `SignInFailed` unless an ID token with these claims is the provider's, for us, for this sign-in, and of now."""
    _check_origin(claims, issuer, client_id)
    issued, now = _instant(claims, "iat"), clock.now_s()
    if _instant(claims, "exp") <= now - LEEWAY_S:
        raise _bad("expired", "Its token has expired.")
    if not now - OLDEST_S - LEEWAY_S <= issued <= now + LEEWAY_S:
        raise _bad("issued_at", "Its token was not issued now. The clocks of both servers may differ.")
    if not _same(claims.get("nonce"), nonce):
        raise _bad("nonce", "Its token belongs to another sign-in.")
    _subject(claims)
    parameters = {"nonce": nonce, "client_id": client_id, "access_token": access_token}
    try:
        CodeIDToken(claims, {"alg": algorithm}, None, parameters).validate(now, LEEWAY_S)
    except JoseError as error:
        raise _bad(getattr(error, "claim", None) or "claims", "Its token does not belong to this sign-in.") from None


def check_logout_token(claims: Claims, *, issuer: str, client_id: str) -> tuple[str | None, str | None, str]:
    """The subject, the session and the `jti` of a logout token. Raises `SignInFailed`."""
    _check_origin(claims, issuer, client_id)
    now = clock.now_s()
    if not now - OLDEST_LOGOUT_S <= _instant(claims, "iat") <= now + LEEWAY_S:
        raise _bad("issued_at", "The logout token is too old.")
    if "exp" in claims and _instant(claims, "exp") <= now - LEEWAY_S:
        raise _bad("expired", "The logout token has expired.")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise _bad("events", "This is not a logout token.")
    if "nonce" in claims:
        raise _bad("nonce", "A logout token has no nonce.")
    subject, sid, jti = (_text(claims.get(name)) for name in ("sub", "sid", "jti"))
    if jti is None or (subject is None and sid is None):
        raise _bad("claims", "The logout token names neither a person nor a session, or has no jti.")
    return subject, sid, jti


def algorithm_of(text: object) -> str:
    return str(_header(text).get("alg"))


def _header(text: object) -> Mapping[str, Any]:
    if not isinstance(text, str) or not text.isascii() or len(text) > LONGEST or text.count(".") != 2:
        raise _bad("malformed", "Its token can't be read.")
    try:
        header = msgspec.json.decode(base64.urlsafe_b64decode(text.partition(".")[0] + "=="))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _bad("malformed", "Its token can't be read.") from None
    if not isinstance(header, dict) or not isinstance(header.get("kid"), str | None):
        raise _bad("malformed", "Its token can't be read.")
    return header


def _check_origin(claims: Claims, issuer: str, client_id: str) -> None:
    if claims.get("iss") != issuer:
        raise _bad("issuer", "Its token is from another issuer.")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or client_id not in audiences:
        raise _bad("audience", "Its token is meant for another application.")
    if len(audiences) > 1 and claims.get("azp") != client_id:
        raise _bad("audience", "Its token was issued to another application.")


def _subject(claims: Claims) -> str:
    subject = _text(claims.get("sub"))
    if subject is None:
        raise _bad("subject", "Its token names nobody.")
    return subject


def _text(value: object) -> str | None:
    """A name from outside, if it is one that can be kept."""
    return value if isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable() else None


def _instant(claims: Claims, name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        raise _bad("claims", "Its token does not say when it was issued and when it expires.")
    return value


def _same(value: object, expected: str) -> bool:
    return isinstance(value, str) and hmac.compare_digest(value.encode(), expected.encode())


def _bad(reason: str, sentence: str) -> SignInFailed:
    return SignInFailed(reason, f"The identity provider’s answer is not accepted. {sentence}")
