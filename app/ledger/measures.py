"""What is summed, and by what: the dimensions and measures that all rollups share, and how their rows are put.

Who sums stands above: `rollups` keeps the sums of every group, `cuts` those that leave dimensions out.
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
from app.ledger.entries import Unbounded
from app.metering.usage import UsageEvent

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

Kind = Literal["day", "week", "month"]
KINDS: tuple[Kind, ...] = ("day", "week", "month")

# What sums are kept by. An absent key, team, subscription or provider is the empty text, so that names stay unique.
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
# What is summed. Milliseconds and nano-units; `errors` and `cancelled` are parts of `requests`.
MEASURES = (
    "requests",
    "errors",
    "cancelled",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "images",
    "audio_ms",
    "cost_nano",
    "overdraft_nano",
    "duration_ms",
    "ttft_ms",
    "ttft_count",
)

Group = tuple[Any, ...]


class Summed:
    """The columns that hourly and longer rollups share: whose usage it was, and the sums."""

    group_key: Mapped[str] = mapped_column(String(32))  # digest of the dimensions: short, and never null
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
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    images: Mapped[int]
    audio_ms: Mapped[int]
    cost_nano: Mapped[int]
    overdraft_nano: Mapped[int]
    duration_ms: Mapped[int]
    ttft_ms: Mapped[int]
    ttft_count: Mapped[int]


def writing() -> AbstractContextManager[Connection]:
    """A transaction that writes, apart from the session's; committed at its end unless something is raised."""
    return db.engine.execution_options(**{WRITES: True}).begin()


def put(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], finish: Callable[[Any], Any]
) -> Sequence[Any]:
    """Insert rows by one statement, which `finish` gives its ON CONFLICT and RETURNING; answers what it returns.

    All rows have the same columns. PostgreSQL gets them as one JSON document: thousands of parameters cost it, and
    its driver, three times as much.
    """
    if not rows:
        return []
    if connection.dialect.name == "postgresql":
        names = list(rows[0])
        told = func.json_populate_recordset(
            literal_column(f"NULL::{table.name}"), cast_sql(bindparam("told", type_=Text()), JSON)
        ).table_valued(*(column(name, table.c[name].type) for name in names), name="told")
        insert = postgresql_insert(table).from_select(names, select(*(told.c[name] for name in names)))
        found = connection.execute(finish(insert), {"told": msgspec.json.encode(rows).decode()})
    else:
        found = connection.execute(finish(sqlite_insert(table)), rows)
    return found.all() if found.returns_rows else []


def group_of(event: UsageEvent) -> Group:
    """The dimensions of one event, in the order of `DIMENSIONS`."""
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
    """What one event adds, in the order of `MEASURES`.

    Only a usage event is a request, with an end and with times. What comes later about it (late) corrects tokens and
    money alone; what moves a counter (repair, credit) costs nothing and adds nothing.
    """
    counts = event.kind == "usage"
    return (
        int(counts),
        int(counts and event.outcome == "error"),
        int(counts and event.outcome == "cancelled"),
        event.prompt_tokens,
        event.cached_tokens,
        event.completion_tokens,
        event.images,
        event.audio_ms,
        event.cost_nano,
        event.overdraft_nano,
        event.duration_ms if counts else 0,
        (event.ttft_ms or 0) if counts else 0,
        int(counts and event.ttft_ms is not None),
    )


def group_key(group: Group) -> str:
    """A short name of a group of dimensions, the same in every process."""
    spelled = "\x1f".join("1" if part is True else "0" if part is False else part for part in group)
    return hashlib.blake2b(spelled.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def entry_measures(entries: Table) -> dict[str, ColumnElement[Any]]:
    """`MEASURES` of one ledger entry as SQL: the same as `measures_of`."""
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


def given(connection: Connection, **columns: TypeEngine[Any]) -> Select[Any]:
    """The parameter `told`, a JSON list of lists, as rows of these columns: one statement however long it is."""
    told = bindparam("told", type_=Text())
    if connection.dialect.name == "postgresql":
        rows = func.json_array_elements(cast_sql(told, JSON)).table_valued("value", name="given")
        parts = [f"given.value ->> {index}" for index in range(len(columns))]
    else:
        rows = func.json_each(told).table_valued("value", name="given")
        parts = [f"json_extract(given.value, '$[{index}]')" for index in range(len(columns))]
    read = zip(columns.items(), parts, strict=True)
    return select(*(cast_sql(literal_column(part), kind).label(name) for (name, kind), part in read)).select_from(rows)


def listed(postgresql: bool) -> Select[str]:
    """The parameter `ids`, a JSON list of texts, as rows: one statement however long the list is."""
    told = bindparam("ids", type_=Text())
    each = func.json_array_elements_text(cast_sql(told, JSON)) if postgresql else func.json_each(told)
    return select(literal_column("listed.value").label("id")).select_from(each.table_valued("value", name="listed"))
