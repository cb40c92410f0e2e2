"""Forms that make a text which is shown once: each carries a number, and however often it is sent, at once or again, it
makes one.

Repeats get the same answer for a minute, so that a second click does not take away what the first one made. Until then
the text waits in Redis, sealed; after that only what it belongs to is remembered.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from redis import RedisError

from app import current, store
from app.domain.errors import Unavailable
from app.domain.person import Person
from app.extensions import db

LONGEST_NUMBER = 64
MAKING_S = 30  # longer than any unit of work takes; after that whoever was making it is taken for dead
SHOWN_AGAIN_S = 60
REMEMBERED_S = 24 * 3600
LOOK_EVERY_S = 0.05
BUSY = "This is taking longer than usual. Look at your keys before you try again."


class Made(NamedTuple):
    """The id of what was made, and its text; None once repeats are not shown it any more."""

    id: str
    text: str | None


def fresh_number() -> str:
    return secrets.token_urlsafe(12)


def make_once(person: Person, number: str | None, make: Callable[[], Made]) -> Made:
    """What the form of this number made, which is `make()` for the first who sends it; the others wait for that.

    A form that failed has made nothing, and may be sent again. Raises `Unavailable` without Redis.
    """
    if not number:
        return make()
    name, text_name = store.created_by_form(person.id, number)
    found = _claim_or_find(name, text_name)
    if found is not None:
        return found
    try:
        made = make()
    except BaseException:
        with contextlib.suppress(RedisError):
            current.redis().delete(name)
        raise
    with contextlib.suppress(RedisError):  # it is made: whoever made it has to see it
        sealed = current.sealer().seal((made.text or "").encode())
        current.redis().set(text_name, sealed, ex=SHOWN_AGAIN_S)  # before the id: who finds that finds this
        current.redis().set(name, made.id, ex=REMEMBERED_S)
    return made


def _claim_or_find(name: str, text_name: str) -> Made | None:
    """None for the one who is to make it, what was made for everybody else."""
    deadline = time.monotonic() + MAKING_S
    try:
        while not current.redis().set(name, "", nx=True, ex=MAKING_S):
            if id := current.redis().get(name):
                sealed = current.redis().get(text_name)
                return Made(str(id), current.sealer().open(str(sealed)).decode() if sealed else None)
            if time.monotonic() > deadline:
                raise Unavailable(BUSY)
            db.session.rollback()  # who waits must not hold a connection, and has to see what was made meanwhile
            time.sleep(LOOK_EVERY_S)
    except RedisError:
        raise Unavailable("Nothing can be made at the moment. Try again in a minute.") from None
    return None
