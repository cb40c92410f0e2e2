"""Forms that create a secret that is shown once. Each form carries a number; however often it is sent, at the same time
or later, it creates one secret.

For a minute, a repeat gets the same response, so a double click does not lose the secret. Meanwhile the secret is kept
in Redis, sealed. After that only the id of what was created is kept.
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
CREATING_S = 30  # longer than any unit of work takes; after that the process that was creating is taken for dead
SHOWN_AGAIN_S = 60
REMEMBERED_S = 24 * 3600
LOOK_EVERY_S = 0.05
BUSY = "This is taking longer than usual. Look at your keys before you try again."


class Created(NamedTuple):
    """The id of what was created, and its secret: None once it is too late to show it again."""

    id: str
    secret: str | None


def fresh_number() -> str:
    """Returns a random number for a new form."""
    return secrets.token_urlsafe(12)


def create_once(person: Person, number: str | None, create: Callable[[], Created]) -> Created:
    """Returns what the form with this number created. The first request runs `create`; repeats wait for its result.

    A form that failed has created nothing and may be sent again. Raises `Unavailable` without Redis.
    """
    if not number:
        return create()
    name, secret_name = store.created_by_form(person.id, number)
    earlier = _claim_or_find(name, secret_name)
    if earlier is not None:
        return earlier
    try:
        created = create()
    except BaseException:
        with contextlib.suppress(RedisError):
            current.redis().delete(name)
        raise
    with contextlib.suppress(RedisError):  # it exists now, so its creator must see the secret
        sealed = current.sealer().seal((created.secret or "").encode(), secret_name)
        # Before the id, so that a reader who finds the id also finds the secret.
        current.redis().set(secret_name, sealed, ex=SHOWN_AGAIN_S)
        current.redis().set(name, created.id, ex=REMEMBERED_S)
    return created


def _claim_or_find(name: str, secret_name: str) -> Created | None:
    """Returns None if this request is the one to create, otherwise what another request created."""
    deadline = time.monotonic() + CREATING_S
    try:
        while not current.redis().set(name, "", nx=True, ex=CREATING_S):
            if id := current.redis().get(name):
                sealed = current.redis().get(secret_name)
                return Created(str(id), current.sealer().open(str(sealed), secret_name).decode() if sealed else None)
            if time.monotonic() > deadline:
                raise Unavailable(BUSY)
            db.session.rollback()  # a waiting request must hold no connection, and must see later commits
            time.sleep(LOOK_EVERY_S)
    except RedisError:
        raise Unavailable("This isn't possible at the moment. Try again in a minute.") from None
    return None
