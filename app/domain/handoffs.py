"""What a browser carries over a redirect: a random token, behind which Redis has a value for ten minutes.

The value is sealed and stands under the token's digest, so that a copy of Redis gives neither.
"""

from __future__ import annotations

import secrets as random_source
from typing import TypeVar

import msgspec
from redis import RedisError

from app import current, store
from app.domain.errors import Unavailable
from app.runtime.sealing import SealingError, digest

LIFETIME_S = 600
LONGEST_TOKEN = 200
T = TypeVar("T", bound=msgspec.Struct)


def put(value: msgspec.Struct) -> str:
    """Keep `value`; return its token. Raises `Unavailable` without Redis."""
    token = random_source.token_urlsafe(32)
    name = _name(token)
    sealed = current.sealer().seal(msgspec.json.encode(value), name)
    try:
        current.redis().set(name, sealed, ex=LIFETIME_S)
    except RedisError:
        raise _unavailable() from None
    return token


def get(token: str, kind: type[T]) -> T | None:
    """The value behind a token; None if there is none, or none any more. Raises `Unavailable` without Redis."""
    return _read(token, kind, take=False)


def take(token: str, kind: type[T]) -> T | None:
    """The same, and for the last time: of two that ask, one gets it."""
    return _read(token, kind, take=True)


def _read(token: str, kind: type[T], *, take: bool) -> T | None:
    if not token.isascii() or len(token) > LONGEST_TOKEN:
        return None
    redis, name = current.redis(), _name(token)
    try:
        sealed = redis.getdel(name) if take else redis.get(name)
    except RedisError:
        raise _unavailable() from None
    if sealed is None:
        return None
    try:
        return msgspec.json.decode(current.sealer().open(str(sealed), name), type=kind)
    except (SealingError, msgspec.MsgspecError):  # of another kind, or sealed with a key that is gone
        return None


def _name(token: str) -> str:
    return store.handoff(digest(current.secrets().key_pepper, f"handoff {token}"))


def _unavailable() -> Unavailable:
    return Unavailable("You can't sign in at the moment. Try again in a minute.")
