"""Passwords: bcrypt over base64(sha256(password)), so that long passwords are not truncated, in a thread under gevent.

Hashing deliberately takes a few tenths of a second, so it stays outside of database transactions.
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
    """The hash to store for a new password. Raises `Invalid` if the password is too short or too long."""
    if len(password) < SHORTEST:
        raise Invalid(f"Use at least {SHORTEST} characters.", field)
    if len(password) > LONGEST:
        raise Invalid(f"Use at most {LONGEST} characters.", field)
    return PasswordHash(_in_a_thread(lambda: bcrypt.hashpw(_prepared(password), bcrypt.gensalt(ROUNDS))).decode())


def matches(password: str, kept: str | None) -> bool:
    """Whether `password` matches the hash `kept`. Without a hash it takes as long and returns False."""
    against = (kept or _nobodys()).encode()
    same = _in_a_thread(lambda: bcrypt.checkpw(_prepared(password), against))
    return same and kept is not None


@cache
def _nobodys() -> str:
    return bcrypt.hashpw(b"nobody's", bcrypt.gensalt(ROUNDS)).decode()


def _prepared(password: str) -> bytes:
    return base64.b64encode(hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest())


def _in_a_thread(work: Callable[[], T]) -> T:
    """Run `work` in a native thread if gevent has patched this process: bcrypt would block every greenlet."""
    from gevent import get_hub, monkey

    if not monkey.is_module_patched("socket"):
        return work()
    result: T = get_hub().threadpool.apply(work)
    return result
