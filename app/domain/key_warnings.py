"""What the owners of keys are warned of: an end that comes near or has come, and a secret that is in use for long.

Each warning is given once: a notice of its kind that leads to the key's page and is young enough stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, exists, literal, or_, select

from app.clock import now
from app.domain import keys, notices
from app.domain.keys import ApiKey
from app.domain.notices import Notice
from app.extensions import db

MANY = 100  # warnings a transaction

DAY = timedelta(days=1)
REMINDED = timedelta(days=90)  # how long it is between two warnings of one key's age


class Kind(NamedTuple):
    """A kind of notice, the condition of a key that deserves it, and how long one lasts."""

    name: str
    due: ColumnElement[bool]
    lasts: timedelta


def send_due() -> int:
    """Warns the owners of keys that deserve it now, up to `MANY` of a kind, and answers how many there were."""
    told = 0
    for warning in _kinds(now()):
        for key in db.session.scalars(
            select(ApiKey)
            .where(ApiKey.revoked_at.is_(None), warning.due, ~_already_sent(warning))
            .order_by(ApiKey.id)
            .limit(MANY)
        ).all():
            title, text = _words(warning.name, key)
            notices.notify(key.person, warning.name, title, text, keys.page_of(key.id))
            told += 1
    return told


def _kinds(at: datetime) -> Iterator[Kind]:
    """A key that was made within the last day is not warned of: its owner has just said when it ends."""
    ends, made = ApiKey.expires_at, ApiKey.created_at
    yield Kind("key.expires_soon", and_(ends > at + DAY, ends <= at + keys.SOON, made <= at - DAY), lasts=keys.SOON)
    yield Kind("key.expires_tomorrow", and_(ends > at, ends <= at + DAY, made <= at - DAY), lasts=DAY)
    yield Kind("key.expired", and_(ends > at - keys.SOON, ends <= at), lasts=keys.SOON)
    yield Kind("key.old", and_(or_(ends.is_(None), ends > at), keys.older_than(keys.OLD)), lasts=REMINDED)


def _already_sent(warning: Kind) -> ColumnElement[bool]:
    return exists(
        select(Notice.id).where(
            Notice.person_id == ApiKey.person_id,
            Notice.kind == warning.name,
            Notice.href == literal(keys.page_of("")) + ApiKey.id,
            Notice.at > now() - warning.lasts,
        )
    )


def _words(kind: str, key: ApiKey) -> tuple[str, str]:
    match kind:
        case "key.expires_soon" | "key.expires_tomorrow":
            assert key.expires_at is not None
            end = f"{key.expires_at.day} {key.expires_at:%b %Y, %H:%M} UTC"
            return (
                f"The key {key.name} expires within {'a day' if kind == 'key.expires_tomorrow' else '7 days'}",
                f"It works until {end}. Give it a later end, or put another key into the applications that use it.",
            )
        case "key.expired":
            return (
                f"The key {key.name} has expired",
                "Applications that use it are refused. Give it a later end, or create another key.",
            )
        case _:
            return (
                f"The key {key.name} is older than {keys.OLD.days} days",
                "Rotate it: a new text takes over, and the present one works on for as long as you choose.",
            )
