"""The dimensions and measures that all rollups share, and how their rows are written.

`rollups` keeps the sums of every group, `summaries` those with dimensions left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Select,
    String,
    Table,
    Text,
    and_,
    bindparam,
    case,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy import cast as cast_sql
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from app.extensions import WRITES, db
from app.ledger.entries import Measured, Unbounded
from app.metering import quantities
from app.metering.usage import UsageEvent

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

Kind = Literal["day", "week", "month"]
KINDS: tuple[Kind, ...] = ("day", "week", "month")

# A missing key, team, subscription or provider is the empty text, so that a group has one name.
DIMENSIONS = (
    "person_id",
    "key_id",
    "team_id",
    "subscription_id",
    "model",
    "provider_id",
    "endpoint",
    "api_type",
    "stream",
)
# Milliseconds and nano-units; `errors` and `cancelled` are parts of `requests`, `refused` calls are none of them.
MEASURES = (
    "requests",
    "errors",
    "cancelled",
    *quantities.NAMES,
    "cost_nano",
    "overdraft_nano",
    "duration_ms",
    "ttft_ms",
    "ttft_count",
    "refused",
)

Group = tuple[Any, ...]


class Summed(Measured):
    """The columns that all rollups share: dimensions and sums."""

    group_key: Mapped[str] = mapped_column(String(32))  # digest of the dimensions, never null
    person_id: Mapped[Unbounded]
    key_id: Mapped[Unbounded]
    team_id: Mapped[Unbounded]
    subscription_id: Mapped[Unbounded]
    model: Mapped[Unbounded]
    provider_id: Mapped[Unbounded]
    endpoint: Mapped[Unbounded]
    api_type: Mapped[Unbounded]
    stream: Mapped[bool]
    requests: Mapped[int]
    errors: Mapped[int]
    cancelled: Mapped[int]
    cost_nano: Mapped[int]
    overdraft_nano: Mapped[int]
    duration_ms: Mapped[int]
    ttft_ms: Mapped[int]
    ttft_count: Mapped[int]
    refused: Mapped[int] = mapped_column(server_default="0")


def writing() -> AbstractContextManager[Connection]:
    """A write transaction apart from the session's. It commits at the end unless an exception is raised."""
    return db.engine.execution_options(**{WRITES: True}).begin()


def upsert(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], finish: Callable[[Any], Any]
) -> Sequence[Any]:
    """Insert rows with one statement and return its rows; `finish` adds ON CONFLICT and RETURNING to it.

    All rows have the same columns. PostgreSQL gets them as one JSON document: thousands of parameters cost it and its
    driver three times as much.
    """
    if not rows:
        return []
    if connection.dialect.name == "postgresql":
        names = list(rows[0])
        data = func.json_populate_recordset(
            literal_column(f"NULL::{table.name}"), cast_sql(bindparam("data", type_=Text()), JSON)
        ).table_valued(*(column(name, table.c[name].type) for name in names), name="data")
        insert = postgresql_insert(table).from_select(names, select(*(data.c[name] for name in names)))
        found = connection.execute(finish(insert), {"data": msgspec.json.encode(rows).decode()})
    else:
        found = connection.execute(finish(sqlite_insert(table)), rows)
    return found.all() if found.returns_rows else []


def group_of(event: UsageEvent) -> Group:
    """The dimensions of an event, in the order of `DIMENSIONS`."""
    return (
        event.person_id,
        event.key_id or "",
        event.team_id or "",
        event.subscription_id or "",
        event.model,
        event.provider_id or "",
        event.endpoint,
        event.api_type,
        event.stream,
    )


def measures_of(event: UsageEvent) -> tuple[int, ...]:
    """The amounts that an event adds, in the order of `MEASURES`.

    Only an event of the kind `usage` is a request, with an outcome and times. A `late` event corrects tokens and money; a
    `repair` or `credit` moves a counter and adds nothing. A `refusal` adds the calls that it stands for, and nothing else.
    """
    counts = event.kind == "usage"
    return (
        int(counts),
        int(counts and event.outcome == "error"),
        int(counts and event.outcome == "cancelled"),
        *(getattr(event, name) for name in quantities.NAMES),
        event.cost_nano,
        event.overdraft_nano,
        event.duration_ms if counts else 0,
        (event.ttft_ms or 0) if counts else 0,
        int(counts and event.ttft_ms is not None),
        event.refused,
    )


def group_key(group: Group) -> str:
    """A short name for a group of dimensions, the same in every process."""
    spelled = "\x1f".join("1" if part is True else "0" if part is False else part for part in group)
    return hashlib.blake2b(spelled.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def entry_measures(entries: Table) -> dict[str, ColumnElement[Any]]:
    """`MEASURES` of a ledger entry as SQL expressions, equal to `measures_of`."""
    counts = entries.c.kind == "usage"
    own = {name: entries.c[name] for name in MEASURES if name in entries.c}
    return {
        **own,
        "requests": case((counts, 1), else_=0),
        "errors": case((and_(counts, entries.c.outcome == "error"), 1), else_=0),
        "cancelled": case((and_(counts, entries.c.outcome == "cancelled"), 1), else_=0),
        "duration_ms": case((counts, entries.c.duration_ms), else_=0),
        "ttft_ms": case((counts, func.coalesce(entries.c.ttft_ms, 0)), else_=0),
        "ttft_count": case((and_(counts, entries.c.ttft_ms.is_not(None)), 1), else_=0),
    }


def rows_from_json(connection: Connection, **columns: TypeEngine[Any]) -> Select[Any]:
    """A query of the parameter `data`, a JSON list of lists, as rows with these columns: one statement for any length."""
    data = bindparam("data", type_=Text())
    if connection.dialect.name == "postgresql":
        rows = func.json_array_elements(cast_sql(data, JSON)).table_valued("value", name="given")
        parts = [f"given.value ->> {index}" for index in range(len(columns))]
    else:
        rows = func.json_each(data).table_valued("value", name="given")
        parts = [f"json_extract(given.value, '$[{index}]')" for index in range(len(columns))]
    read = zip(columns.items(), parts, strict=True)
    return select(*(cast_sql(literal_column(part), kind).label(name) for (name, kind), part in read)).select_from(rows)


def values_from_json(postgresql: bool) -> Select[str]:
    """A query of the parameter `ids`, a JSON list of texts, as rows: one statement for any length."""
    ids = bindparam("ids", type_=Text())
    each = func.json_array_elements_text(cast_sql(ids, JSON)) if postgresql else func.json_each(ids)
    return select(literal_column("listed.value").label("id")).select_from(each.table_valued("value", name="listed"))
