"""Keys arranged for a list: what its address asks for, in which order, what is known of each, and the list as a file.

A person's own list and the admins' one over everybody's keys are the same but for whose keys they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from flask import Response
from sqlalchemy import Select, select

from app.clock import from_ms, now, to_ms
from app.domain import budgets, fields, keys
from app.domain.keys import ApiKey, KeyFields
from app.domain.person import Person
from app.metering import money
from app.reports import requests
from app.reports import usage as usage_reports
from app.reports.usage import Filters, PeriodUsage, Reader, Sums
from app.web import exports, lists
from app.web.lists import ListFilter

ENDING = timedelta(days=30)
UNUSED = timedelta(days=90)
CONCERNS = {
    "expiring": f"Expires within {ENDING.days} days",
    "unused": f"Not used for {UNUSED.days} days",
    "old": f"Older than {keys.OLD.days} days",
}
EXPORTED_AT_ONCE = 200
DAYS = 30  # of a key's use

# What the heads of the list sort by.
COLUMNS = {
    "name": ApiKey.name,
    "owner": select(Person.username).where(Person.id == ApiKey.person_id).scalar_subquery(),
    "used": ApiKey.last_used_ms,  # who was never used, was used longest ago
    "expires": ApiKey.expires_at,
}


class Row(NamedTuple):
    """One key of a list with the meter's numbers and its last use."""

    key: ApiKey
    standing: budgets.Standing
    last_used_at: datetime | None


def filters_from_request() -> ListFilter:
    """What this request narrows a list of keys to."""
    return lists.filters_from_request(status=keys.STATUSES, model=None, concern=CONCERNS)


def narrowed(found: Select[ApiKey], filters: ListFilter) -> Select[ApiKey]:
    """Those of some keys that the filters leave."""
    found = keys.filtered(
        found, search=filters.search or None, status=filters["status"] or None, model=filters["model"] or None
    )
    match filters["concern"]:
        case "expiring":
            found = found.where(keys.ending_within(ENDING))
        case "unused":
            since = now() - UNUSED
            unused = ApiKey.last_used_ms < to_ms(since)
            found = found.where(keys.live(), ApiKey.created_at <= since, unused)
        case "old":
            found = found.where(keys.older_than(keys.OLD))
    return found


def rows(reader: Reader, found: Iterable[ApiKey]) -> list[Row]:
    """Keys with their numbers, read for all of them at once."""
    listed = list(found)
    ids = [key.id for key in listed]
    standings = budgets.standings([("key", id) for id in ids])
    used_ms = requests.last_use(reader, ids)
    return [
        Row(key, standing, from_ms(used_ms[key.id]) if key.id in used_ms else None)
        for key, standing in zip(listed, standings, strict=True)
    ]


def _rate(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row.key, name)


EXPORTED: Mapping[str, Callable[[Row], Any]] = {
    "id": lambda row: row.key.id,
    "name": lambda row: row.key.name,
    "note": lambda row: row.key.note,
    "owner": lambda row: row.key.person.username,
    "prefix": lambda row: row.key.prefix,
    "last4": lambda row: row.key.last4,
    "models": lambda row: list(row.key.models),
    "status": lambda row: row.key.status,
    "spent": lambda row: money.optional_text(row.standing.spent_nano),
    "budget": lambda row: money.optional_text(row.standing.limit_nano),
    "budget_period": lambda row: None if row.standing.limit_nano is None else row.standing.period,
    **{name: _rate(name) for name in fields.numbers(KeyFields)},
    "routing": lambda row: row.key.routing,
    "last_used_at": lambda row: row.last_used_at,
    "created_at": lambda row: row.key.created_at,
    "expires_at": lambda row: row.key.expires_at,
    "paused_at": lambda row: row.key.paused_at,
    "revoked_at": lambda row: row.key.revoked_at,
}


def exported(form: exports.Format, reader: Reader, found: Iterator[ApiKey]) -> Response:
    """These keys as a file."""

    def every_row() -> Iterator[Row]:
        while some := list(islice(found, EXPORTED_AT_ONCE)):
            yield from rows(reader, some)

    return exports.answer(form, "keys", EXPORTED, every_row())


class Used(NamedTuple):
    """What a key was used for in the last days, today included, by UTC day."""

    days: list[PeriodUsage]
    sums: Sums


def use_of(reader: Reader, key: ApiKey) -> Used:
    """The last `DAYS` days of a key."""
    days = usage_reports.usage(reader, "day", periods=DAYS, filters=Filters(key_id=key.id))
    sums = Sums()
    for day in days:
        sums.add(day)
    return Used(days, sums)
