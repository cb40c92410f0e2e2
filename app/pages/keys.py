"""Keys as a list: its filters and its order, the figures of each key, and the export.

A person's own list and the admins' list of all keys differ only in whose keys they contain.
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

EXPIRES_SOON = timedelta(days=30)
UNUSED = timedelta(days=90)
CONCERNS = {
    "expiring": f"Expires within {EXPIRES_SOON.days} days",
    "unused": f"Not used for {UNUSED.days} days",
    "old": f"Older than {keys.OLD.days} days",
}
BATCH = 200
DAYS = 30  # of a key's usage

# The sortable columns of the list.
COLUMNS = {
    "name": ApiKey.name,
    "owner": select(Person.username).where(Person.id == ApiKey.person_id).scalar_subquery(),
    "used": ApiKey.last_used_ms,  # a key that was never used sorts as the least recently used
    "expires": ApiKey.expires_at,
}


class Row(NamedTuple):
    """One key of a list, with its live figures and its last use."""

    key: ApiKey
    standing: budgets.Standing
    last_used_at: datetime | None


def filters_from_request() -> ListFilter:
    """Reads the filters of this request for a list of keys."""
    return lists.filters_from_request(status=keys.STATUSES, model=None, concern=CONCERNS)


def filtered(query: Select[ApiKey], filters: ListFilter) -> Select[ApiKey]:
    """Returns `query` narrowed by `filters`."""
    query = keys.filtered(
        query, search=filters.search or None, status=filters["status"] or None, model=filters["model"] or None
    )
    match filters["concern"]:
        case "expiring":
            query = query.where(keys.ending_within(EXPIRES_SOON))
        case "unused":
            since = now() - UNUSED
            unused = ApiKey.last_used_ms < to_ms(since)
            query = query.where(keys.live(), ApiKey.created_at <= since, unused)
        case "old":
            query = query.where(keys.older_than(keys.OLD))
    return query


def rows(reader: Reader, batch: Iterable[ApiKey]) -> list[Row]:
    """Returns keys with their figures, read for all of them together."""
    listed = list(batch)
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
    "scopes": lambda row: list(row.key.scopes),
    "last_used_at": lambda row: row.last_used_at,
    "created_at": lambda row: row.key.created_at,
    "expires_at": lambda row: row.key.expires_at,
    "paused_at": lambda row: row.key.paused_at,
    "revoked_at": lambda row: row.key.revoked_at,
}


def exported(file_format: exports.Format, reader: Reader, all_keys: Iterator[ApiKey]) -> Response:
    """Answers with these keys as a file."""

    def every_row() -> Iterator[Row]:
        while batch := list(islice(all_keys, BATCH)):
            yield from rows(reader, batch)

    return exports.answer(file_format, "keys", EXPORTED, every_row())


class KeyUsage(NamedTuple):
    """The usage of a key in the last `DAYS` UTC days, today included: by day and in total."""

    days: list[PeriodUsage]
    sums: Sums


def usage_of(reader: Reader, key: ApiKey) -> KeyUsage:
    """Returns the usage of a key in the last `DAYS` days."""
    days = usage_reports.usage(reader, "day", periods=DAYS, filters=Filters(key_id=key.id))
    sums = Sums()
    for day in days:
        sums.add(day)
    return KeyUsage(days, sums)
