"""Browser sessions: a random id in a signed cookie and a record in Redis. A person can list and revoke their sessions.

Only the browser's cookie has the id. Redis stores a digest of it, so that nobody can use a session from a copy of Redis.
Each use extends the session. Without Redis nobody is signed in: pages lead to the sign-in page, without an error.
"""

from __future__ import annotations

import contextlib
import secrets as random_source
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from redis import RedisError

from app import clock, current, store
from app.domain.errors import NotFound, Unavailable
from app.runtime.sealing import SealingError, digest

COOKIE_FIELD = "sid"
# What a browser's User-Agent has of it, the more special first: most claim to be others too.
BROWSERS = {
    "Edg": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "FxiOS/": "Firefox", "Chrome/": "Chrome", "CriOS/": "Chrome",
    "Safari/": "Safari",
}  # fmt: skip
SYSTEMS = {
    "Windows": "Windows", "Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Mac OS X": "macOS", "CrOS": "ChromeOS",
    "Linux": "Linux",
}  # fmt: skip
SLIDE_EVERY_S = 60
LONGEST_HINT = 8_000  # characters of an ID token that is kept: it travels in an address


class BrowserSession(msgspec.Struct, frozen=True, kw_only=True):
    """One signed-in browser, named by the digest of its session id; times in Unix seconds."""

    digest: str
    person_id: str
    created: int
    seen: int
    address: str
    agent: str
    subject: str = ""  # whom the identity provider called so signed in; "" after a sign-in by password
    sid: str = ""  # the provider's own name of its session
    id_token: str = ""  # sealed; the provider wants to see it again at the end

    @property
    def is_of_provider(self) -> bool:
        return bool(self.subject)

    @property
    def created_at(self) -> datetime:
        return clock.from_ms(self.created * 1000)

    @property
    def seen_at(self) -> datetime:
        return clock.from_ms(self.seen * 1000)

    @property
    def reference(self) -> str:
        """The short name that pages use in addresses."""
        return self.digest[:16]

    @property
    def device(self) -> str:
        """The browser and the system that its User-Agent claims, such as "Firefox on Linux"; what is unknown is left out."""
        browser = next((name for mark, name in BROWSERS.items() if mark in self.agent), None)
        system = next((name for mark, name in SYSTEMS.items() if mark in self.agent), None)
        known = [word for word in (browser, system) if word]
        return " on ".join(known) or self.agent[:40] or "Unknown browser"


def _lifetime_s() -> int:
    return max(60, int(current.config().auth.session_hours * 3600))


class OfProvider(msgspec.Struct, frozen=True, kw_only=True):
    """The identity provider's side of a session."""

    subject: str
    sid: str | None = None
    id_token: str | None = None


def begin(person_id: str, *, address: str, agent: str, of_provider: OfProvider | None = None) -> str:
    """Start a session; return its secret id, for the browser's cookie only. Raises `Unavailable` without Redis."""
    moment, id = clock.now_s(), random_source.token_urlsafe(32)
    session = BrowserSession(
        digest=_digest(id),
        person_id=person_id,
        created=moment,
        seen=moment,
        address=address[:64],
        agent=agent[:200],
    )
    if of_provider:
        hint = of_provider.id_token
        session = msgspec.structs.replace(
            session,
            subject=of_provider.subject,
            sid=of_provider.sid or "",
            id_token=current.sealer().seal(hint.encode(), store.session(session.digest))
            if hint and len(hint) <= LONGEST_HINT
            else "",
        )
    name, index = store.session(session.digest), store.sessions_of(person_id)
    try:
        with current.redis().pipeline() as pipe:
            pipe.hset(name, mapping=msgspec.to_builtins(session))
            pipe.expire(name, _lifetime_s())
            pipe.sadd(index, session.digest)
            pipe.expire(index, _lifetime_s())
            if session.sid:
                pipe.sadd(_of_sid(session.sid), session.digest)
                pipe.expire(_of_sid(session.sid), _lifetime_s())
            pipe.execute()
    except RedisError:
        raise Unavailable("You can't sign in at the moment. Try again in a minute.") from None
    return id


def find(id: str) -> BrowserSession | None:
    """Return and extend the session with this id; None if it has expired or was revoked, or Redis does not answer."""
    try:
        found = _read(current.redis().hgetall(store.session(_digest(id))))
    except RedisError:
        return None
    if found and clock.now_s() - found.seen > SLIDE_EVERY_S:
        with contextlib.suppress(RedisError):  # a Redis that refuses writes signs nobody out
            _slide(found)
    return found


def owned_by(person_id: str) -> list[BrowserSession]:
    """A person's sessions, most recently used first; empty without Redis."""
    index = store.sessions_of(person_id)
    try:
        redis = current.redis()
        digests = sorted(str(member) for member in redis.smembers(index))
        found = [_read(redis.hgetall(store.session(one))) for one in digests]
        over = [one for one, session in zip(digests, found, strict=True) if session is None]
        if over:
            redis.srem(index, *over)
    except RedisError:
        return []
    return sorted((session for session in found if session), key=lambda session: -session.seen)


def get_own(person_id: str, reference: str) -> BrowserSession:
    """The person's session with this `reference`. Raises `NotFound`."""
    session = next((session for session in owned_by(person_id) if session.reference == reference), None)
    if session is None:
        raise NotFound("This session no longer exists.")
    return session


def take_seen() -> dict[str, datetime]:
    """Return and forget who used the portal since the last call, and when, by person id."""
    with current.redis().pipeline(transaction=True) as pipe:
        pipe.hgetall(store.SEEN)
        pipe.delete(store.SEEN)
        found, _ = pipe.execute()
    return {str(id): clock.from_ms(int(moment) * 1000) for id, moment in found.items()}


def end(id: str) -> None:
    """End the session with this id. Without Redis it has ended already."""
    with contextlib.suppress(RedisError):
        found = _read(current.redis().hgetall(store.session(_digest(id))))
        if found:
            revoke(found)


def revoke(session: BrowserSession) -> None:
    """End one of a person's sessions. Without Redis it has ended already."""
    with contextlib.suppress(RedisError):
        current.redis().delete(store.session(session.digest))
        current.redis().srem(store.sessions_of(session.person_id), session.digest)


def end_all(person_id: str, *, but: str | None = None) -> None:
    """End all sessions of a person except the one with the digest `but`."""
    for session in owned_by(person_id):
        if session.digest != but:
            revoke(session)


def end_of_subject(person_id: str, subject: str) -> None:
    """End a person's sessions that began by the provider's sign-in of `subject`. Raises `RedisError`."""
    for member in current.redis().smembers(store.sessions_of(person_id)):
        found = _read(current.redis().hgetall(store.session(str(member))))
        if found and found.subject == subject:
            revoke(found)


def end_of_sid(sid: str) -> int:
    """End the sessions that belong to the provider's session `sid`; return how many. Raises `RedisError`."""
    ended = 0
    for member in current.redis().smembers(_of_sid(sid)):
        found = _read(current.redis().hgetall(store.session(str(member))))
        if found and found.sid == sid:
            revoke(found)
            ended += 1
    return ended


def hint_of(session: BrowserSession) -> str | None:
    """The ID token that a session began with, if it is kept."""
    try:
        place = store.session(session.digest)
        return current.sealer().open(session.id_token, place).decode() if session.id_token else None
    except SealingError:
        return None


def _of_sid(sid: str) -> str:
    return store.sessions_of_provider(digest(current.secrets().key_pepper, f"sid {sid}"))


def _digest(id: str) -> str:
    return digest(current.secrets().key_pepper, f"session {id}")


def _read(fields: Mapping[Any, Any]) -> BrowserSession | None:
    try:
        return msgspec.convert(fields, BrowserSession, strict=False) if fields else None
    except msgspec.ValidationError:
        return None


# The hash may have been deleted since it was read; setting a field would revive a revoked session.
_SLIDE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'seen', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


def _slide(session: BrowserSession) -> None:
    redis = current.redis()
    lifetime = _lifetime_s()
    moment = clock.now_s()
    if redis.eval(_SLIDE, 1, store.session(session.digest), moment, lifetime):
        redis.expire(store.sessions_of(session.person_id), lifetime)
        if session.sid:
            redis.expire(_of_sid(session.sid), lifetime)
        redis.hset(store.SEEN, session.person_id, moment)
