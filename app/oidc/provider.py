"""The identity provider of the settings: where it is, what its keys are, and how a code becomes somebody.

It is asked over HTTP by Authlib's OAuth 2 client, within bounds of time and size, and never led elsewhere. What it says of
itself is remembered for a while in each process; a key that is missing is asked for anew.

OpenShift's OAuth server is no OpenID provider: it gives no ID token, and says who somebody is at the cluster's own API.
"""

from __future__ import annotations

import base64
import logging
import secrets as random_source
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6749.errors import OAuth2Error
from joserfc.jwk import Key
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from app import current
from app.oidc import tokens
from app.oidc.errors import ProviderFailed, SignInFailed
from app.oidc.tokens import Claims
from config import Oidc, is_loopback

log = logging.getLogger(__name__)

TIMEOUT_S, TOTAL_S = 5.0, 15.0
LARGEST_ANSWER = 1024 * 1024
REMEMBERED_S = 600.0
KEYS_ANEW_S = 5.0  # the shortest time between two looks at the keys
MOST_GROUPS = 5_000
OPENSHIFT_SCOPE = "user:full"
USER_INFO_PATH = "/apis/user.openshift.io/v1/users/~"


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of itself, as far as it matters here."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str | None = None
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool = False


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed in, as the provider tells it. `username` and `email` are its words, and prove nothing by themselves."""

    issuer: str
    subject: str
    username: str
    email: str | None = None
    email_verified: bool = True  # false only if the provider says so
    groups: list[str] = []
    sid: str | None = None
    id_token: str | None = None


class Provider:
    """The identity provider with what this process knows of it."""

    def __init__(self, settings: Oidc) -> None:
        self.settings = settings
        self.issuer = (settings.issuer or "").rstrip("/")
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, list[Key]] | None = None
        self._turn = threading.Lock()  # one look at a time, whoever asks

    @property
    def is_openshift(self) -> bool:
        return self.settings.preset == "openshift"

    @property
    def scopes(self) -> list[str]:
        return [OPENSHIFT_SCOPE] if self.is_openshift else self.settings.scopes

    def metadata(self) -> Metadata:
        """What the provider says of itself. Raises `ProviderFailed`."""
        with self._turn:
            known = self._metadata
            if known and time.monotonic() - known[0] < REMEMBERED_S:
                return known[1]
            document = "oauth-authorization-server" if self.is_openshift else "openid-configuration"
            told = self._get(f"{self.issuer}/.well-known/{document}")
            try:
                metadata = msgspec.convert(told, Metadata)
            except msgspec.ValidationError:
                raise _unreadable("its description of itself") from None
            self._check(metadata)
            self._metadata = time.monotonic(), metadata
            return metadata

    def _check(self, metadata: Metadata) -> None:
        if metadata.issuer.rstrip("/") != self.issuer:
            raise ProviderFailed("issuer", "The identity provider says that it is another one. Check oidc.issuer.")
        places = (
            metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri, metadata.userinfo_endpoint,
            metadata.end_session_endpoint,
        )  # fmt: skip
        for place in filter(None, places):
            scheme = urlsplit(place).scheme
            if scheme != "https" and not (scheme == "http" and (not current.config().production or is_loopback(place))):
                raise ProviderFailed("address", "The identity provider names an address without TLS.")
        if not self.is_openshift and not metadata.jwks_uri:
            raise _unreadable("its description of itself")

    def keys(self, anew: bool = False) -> list[Key]:
        """The provider's keys. Raises `ProviderFailed`."""
        place = self.metadata().jwks_uri
        with self._turn:
            known, moment = self._keys, time.monotonic()
            if known and moment - known[0] < (KEYS_ANEW_S if anew else REMEMBERED_S):
                return known[1]
            self._keys = moment, tokens.import_keys(self._get(place or ""))
            return self._keys[1]

    def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """The address that a browser is led to. Raises `ProviderFailed`."""
        metadata = self.metadata()
        beside = {} if self.is_openshift else {"nonce": nonce}
        with self._client(metadata, redirect_uri) as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint, state=state, code_verifier=verifier, **beside
            )
        return str(url)

    def check_response(self, *, iss: str | None) -> None:
        """Raises `SignInFailed` if the answer in the browser's address says that it is from another provider (RFC 9207)."""
        metadata = self.metadata()
        if iss is None and not metadata.authorization_response_iss_parameter_supported:
            return
        if iss is None or iss != metadata.issuer:
            raise SignInFailed("issuer", "This answer is from another identity provider.")

    def exchange(self, *, code: str, redirect_uri: str, verifier: str, nonce: str) -> Profile:
        """Who the code stands for. Raises `SignInFailed`, or `ProviderFailed`."""
        metadata = self.metadata()
        try:
            with self._client(metadata, redirect_uri) as client:
                granted = client.fetch_token(
                    metadata.token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=verifier,
                    allow_redirects=False,
                )
        except (OAuthError, OAuth2Error) as error:
            word = str(getattr(error, "error", None) or "")
            if word == "invalid_grant":
                raise SignInFailed("code", "The identity provider does not accept this sign-in any more.") from None
            log.warning("the identity provider refused the exchange of a code: %s", word[:60] or type(error).__name__)
            raise ProviderFailed("token_endpoint", "The identity provider refused Portico’s own sign-in.") from None
        except requests.RequestException as error:
            raise _unreachable(error) from None
        except (ValueError, TypeError, AttributeError, KeyError):
            raise _unreadable("its answer with the tokens") from None
        if not isinstance(granted, dict):
            raise _unreadable("its answer with the tokens")
        if self.is_openshift:
            return self._of_openshift(granted)
        return self._of_tokens(granted, metadata, nonce)

    def _of_tokens(self, granted: dict[str, Any], metadata: Metadata, nonce: str) -> Profile:
        text, access = granted.get("id_token"), granted.get("access_token")
        if text is None:
            raise SignInFailed("no_id_token", "The identity provider gave no ID token.")
        access = access if isinstance(access, str) else None
        claims = tokens.verified(text, self.keys, self.settings.algorithms)
        tokens.check_id_token(
            claims,
            issuer=metadata.issuer,
            client_id=self.settings.client_id or "",
            nonce=nonce,
            access_token=access,
            algorithm=tokens.algorithm_of(text),
        )
        sources = [claims]
        wanted = (self.settings.groups_claim, self.settings.username_claim, "email")
        if access and metadata.userinfo_endpoint and any(name not in claims for name in wanted):
            sources.append(self._userinfo(metadata.userinfo_endpoint, access, claims["sub"]))
        if access and all(self.settings.groups_claim not in source for source in sources):
            sources.append(self._claims_of_access_token(access, metadata))
        return profile_of(self.settings, metadata.issuer, sources, id_token=str(text))

    def _userinfo(self, place: str, access: str, subject: object) -> Claims:
        told = self._get(place, bearer=access)
        if told.get("sub") != subject:
            raise SignInFailed("userinfo", "The identity provider tells of somebody else than who signed in.")
        return told

    def _claims_of_access_token(self, access: str, metadata: Metadata) -> Claims:
        """What an access token says of groups, if it is one that this provider signed; it may as well be opaque."""
        try:
            claims = tokens.verified(access, self.keys, self.settings.algorithms)
        except ProviderFailed:
            raise
        except SignInFailed:
            return {}
        fits = claims.get("iss") == metadata.issuer
        return {self.settings.groups_claim: claims.get(self.settings.groups_claim)} if fits else {}

    def _of_openshift(self, granted: dict[str, Any]) -> Profile:
        access = granted.get("access_token")
        if not isinstance(access, str) or not access:
            raise _unreadable("its answer with the tokens")
        user = self._get((self.settings.api_url or "").rstrip("/") + USER_INFO_PATH, bearer=access)
        known = user.get("metadata")
        known = known if isinstance(known, dict) else {}
        claims = {"sub": known.get("uid"), "preferred_username": known.get("name"), "groups": user.get("groups")}
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise _unreadable("what the cluster tells of the person")
        return profile_of(msgspec.structs.replace(self.settings, username_claim="preferred_username",
                                                  groups_claim="groups"), self.issuer, [claims])  # fmt: skip

    def logout_token(self, text: str) -> tuple[str | None, str | None, str]:
        """The subject, session and `jti` that a logout token names. Raises `SignInFailed`, or `ProviderFailed`."""
        metadata = self.metadata()
        claims = tokens.verified(text, self.keys, self.settings.algorithms)
        return tokens.check_logout_token(claims, issuer=metadata.issuer, client_id=self.settings.client_id or "")

    def sign_out_url(self, *, id_token: str | None, back_to: str) -> str | None:
        """Where a browser ends the provider's own session; None if it has no such place or can't be asked."""
        try:
            place = self.metadata().end_session_endpoint
        except ProviderFailed:
            return None
        if not place:
            return None
        values = {"client_id": self.settings.client_id or "", "post_logout_redirect_uri": back_to}
        values |= {"id_token_hint": id_token} if id_token else {}
        return f"{place}{'&' if '?' in place else '?'}{urlencode(values)}"

    def _client(self, metadata: Metadata, redirect_uri: str) -> OAuth2Session:
        client = OAuth2Session(
            self.settings.client_id,
            self.settings.client_secret,
            token_endpoint_auth_method=self._way_of_proof(metadata),
            scope=" ".join(self.scopes),
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            default_timeout=TIMEOUT_S,
        )
        _bound(client)
        return client

    def _way_of_proof(self, metadata: Metadata) -> str:
        if self.settings.client_secret is None:
            return "none"
        supported = metadata.token_endpoint_auth_methods_supported
        posts = supported is not None and "client_secret_basic" not in supported and "client_secret_post" in supported
        return "client_secret_post" if posts else "client_secret_basic"

    def _get(self, url: str, bearer: str | None = None) -> Claims:
        """The JSON object at an address. Raises `ProviderFailed`."""
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        try:
            with requests.Session() as session:
                _bound(session)
                answer = session.get(url, headers=headers, timeout=TIMEOUT_S, allow_redirects=False)
        except (requests.RequestException, ValueError) as error:
            raise _unreachable(error) from None
        if answer.status_code != 200:
            raise ProviderFailed("status", f"The identity provider answered {answer.status_code}.")
        try:
            document = msgspec.json.decode(answer.content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise _unreadable("its answer") from None
        if not isinstance(document, dict):
            raise _unreadable("its answer")
        return document


class _Bounded(HTTPAdapter):
    """Reads an answer whole, within `LARGEST_ANSWER` bytes and `TOTAL_S` seconds, and trusts what the system trusts."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **kwargs)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        deadline = time.monotonic() + TOTAL_S
        kwargs["stream"] = True
        answer = super().send(request, *args, **kwargs)
        body = bytearray()
        try:
            while piece := answer.raw.read1(64 * 1024, decode_content=True):
                body += piece
                if len(body) > LARGEST_ANSWER or time.monotonic() > deadline:
                    raise requests.exceptions.ContentDecodingError("an answer too large or too slow")
        except (HTTPError, OSError) as error:
            raise requests.exceptions.ConnectionError(error) from error
        finally:
            answer.close()
        answer._content = bytes(body)
        return answer


def _bound(session: requests.Session) -> None:
    session.trust_env = False  # neither proxies nor passwords that other programs have
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Bounded(max_retries=0))


def profile_of(settings: Oidc, issuer: str, sources: Iterable[Claims], *, id_token: str | None = None) -> Profile:
    """What `sources` tell of a person, where the first one that knows something is believed. Raises `SignInFailed`."""
    told = list(sources)

    def first(name: str) -> Any:
        return next((source[name] for source in told if source.get(name) is not None), None)

    def text(name: str) -> str | None:
        value = first(name)
        return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 255 else None

    subject, email = text("sub"), text("email")
    if subject is None:
        raise SignInFailed("subject", "The identity provider does not say who signed in.")
    named = text(settings.username_claim) or (email.partition("@")[0] if email else None) or subject
    groups = first(settings.groups_claim)
    groups = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
    kept = dict.fromkeys(one for one in groups if isinstance(one, str) and 0 < len(one) <= 255 and one.isprintable())
    return Profile(
        issuer=issuer.rstrip("/"),
        subject=subject,
        username=named,
        email=email,
        email_verified=first("email_verified") not in (False, "false"),
        groups=list(kept)[:MOST_GROUPS],
        sid=text("sid"),
        id_token=id_token,
    )


def new_verifier() -> str:
    """A PKCE verifier of 64 random bytes (86 characters)."""
    return base64.urlsafe_b64encode(random_source.token_bytes(64)).rstrip(b"=").decode()


_known: dict[bytes, Provider] = {}


def provider() -> Provider | None:
    """The identity provider of the settings; None if there is none."""
    settings = current.config().oidc
    if not settings.issuer:
        return None
    name = msgspec.json.encode(settings)
    if name not in _known:
        _known[name] = Provider(settings)
    return _known[name]


def _unreachable(error: Exception) -> ProviderFailed:
    return ProviderFailed(type(error).__name__, "The identity provider can’t be reached. Try again in a minute.")


def _unreadable(what: str) -> ProviderFailed:
    return ProviderFailed("unreadable", f"The identity provider’s answer can’t be read: {what}.")
