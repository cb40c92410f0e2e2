"""Warnings to owners of keys: a key expires soon or has expired, or its secret is old.

Each warning is sent once: a recent notification of its kind that links to the key's page shows that it was sent.
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

MANY = 100  # warnings per transaction

DAY = timedelta(days=1)
REMINDED = timedelta(days=90)  # the time between two warnings about one key's age


class Kind(NamedTuple):
    """A kind of warning, the condition of the keys that it is for, and how long until it is sent again."""

    name: str
    due: ColumnElement[bool]
    lasts: timedelta


def send_due() -> int:
    """Send the warnings that are due, at most `MANY` of each kind; return how many were sent."""
    sent = 0
    for warning in _kinds(now()):
        for key in db.session.scalars(
            select(ApiKey)
            .where(ApiKey.revoked_at.is_(None), warning.due, ~_already_sent(warning))
            .order_by(ApiKey.id)
            .limit(MANY)
        ).all():
            title, text = _words(warning.name, key)
            notices.notify(key.person, warning.name, title, text, keys.page_of(key.id))
            sent += 1
    return sent


def _kinds(at: datetime) -> Iterator[Kind]:
    """The kinds of warnings. Keys created within the last day are left out: their owner has just chosen the expiry."""
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
                f"It expires at {end}. Extend it, or use another key in the applications that use it.",
            )
        case "key.expired":
            return (
                f"The key {key.name} has expired",
                "Requests with it are refused. Extend it, or create another key.",
            )
        case _:
            return (
                f"The key {key.name} is older than {keys.OLD.days} days",
                "Rotate it: you get a new secret, and the current one stays valid for as long as you choose.",
            )
