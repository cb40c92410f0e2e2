"""Passwords: bcrypt over base64(sha256(password)), so that no length is cut off, in a thread where gevent runs.

Hashing takes a few tenths of a second on purpose, so it stays outside of database transactions.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from typing import NewType, TypeVar

import bcrypt

from app.domain.errors import Invalid

SHORTEST, LONGEST = 12, 1024
ROUNDS = 12

PasswordHash = NewType("PasswordHash", str)
T = TypeVar("T")


def hashed(password: str, field: str = "password") -> PasswordHash:
    """What is kept of a new password. Raises `Invalid` for one that is too short or too long."""
    if len(password) < SHORTEST:
        raise Invalid(f"Use at least {SHORTEST} characters.", field)
    if len(password) > LONGEST:
        raise Invalid(f"Use at most {LONGEST} characters.", field)
    return PasswordHash(_in_a_thread(lambda: bcrypt.hashpw(_prepared(password), bcrypt.gensalt(ROUNDS))).decode())


def matches(password: str, kept: str | None) -> bool:
    """Whether `password` is the one `kept` was made from. Without a hash it takes as long and answers no."""
    against = (kept or _nobodys()).encode()
    same = _in_a_thread(lambda: bcrypt.checkpw(_prepared(password), against))
    return same and kept is not None


@cache
def _nobodys() -> str:
    return bcrypt.hashpw(b"nobody's", bcrypt.gensalt(ROUNDS)).decode()


def _prepared(password: str) -> bytes:
    return base64.b64encode(hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest())


def _in_a_thread(work: Callable[[], T]) -> T:
    """Runs `work` in gevent's native threads when this process is patched: bcrypt would hold every greenlet up."""
    from gevent import get_hub, monkey

    if not monkey.is_module_patched("socket"):
        return work()
    result: T = get_hub().threadpool.apply(work)
    return result
