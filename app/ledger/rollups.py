"""Rollups: usage summed by hour while entries are posted, and by day, week and month a little later.

Hourly sums advance in the transaction that posts, so they always equal the entries. Longer ones are derived from the hours
that changed, in time proportional to those; deriving again does no harm.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import structlog
from sqlalchemy import (
    BigInteger,
    Connection,
    Index,
    PrimaryKeyConstraint,
    Row,
    Select,
    String,
    Table,
    Text,
    and_,
    func,
    select,
    text,
    true,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import Base, db
from app.ledger import summaries
from app.ledger.entries import ENTRY
from app.ledger.measures import (
    DAY_MS,
    DIMENSIONS,
    HOUR_MS,
    KINDS,
    MEASURES,
    Group,
    Kind,
    Summed,
    entry_measures,
    group_key,
    group_of,
    measures_of,
    rows_from_json,
    upsert,
    writing,
)
from app.metering.periods import window_of
from app.metering.usage import UsageEvent

log = structlog.get_logger(__name__)


class UsageHourly(Summed, Base):
    """The sums of one hour from `start_ms`. `derived` is false until the longer rollups contain them."""

    __tablename__ = "usage_hourly"
    __table_args__ = (
        PrimaryKeyConstraint("group_key", "start_ms"),  # in this order: a group's hours lie together
        Index(None, "start_ms"),
        Index(None, "person_id", "start_ms"),
        Index(None, "key_id", "start_ms"),
        Index(None, "team_id", "start_ms"),
        Index(None, "model", "start_ms"),
        Index(
            "ix_usage_hourly_underived",
            "start_ms",
            sqlite_where=text("NOT derived"),
            postgresql_where=text("NOT derived"),
        ),
    )

    start_ms: Mapped[int]
    derived: Mapped[bool]


class UsageRollup(Summed, Base):
    """The sums of one calendar day, week (from Monday) or month in UTC, derived from the hourly ones."""

    __tablename__ = "usage_rollup"
    __table_args__ = (
        PrimaryKeyConstraint("kind", "start_ms", "group_key"),  # in this order: what changes together lies together
        Index(None, "person_id", "kind", "start_ms"),
        Index(None, "key_id", "kind", "start_ms"),
        Index(None, "team_id", "kind", "start_ms"),
        Index(None, "model", "kind", "start_ms"),
    )

    kind: Mapped[str] = mapped_column(String(8))
    start_ms: Mapped[int]


HOURLY = cast("Table", UsageHourly.__table__)
NOTHING = (0,) * len(MEASURES)
UNDERIVED = text("NOT derived")  # spelled as in the index, or SQLite does not use it
ROLLUP = cast("Table", UsageRollup.__table__)


def advance(connection: Connection, events: Iterable[UsageEvent]) -> None:
    """Add events to their hours, inside the caller's transaction. Pass only events whose entries are new."""
    sums: dict[tuple[int, Group], list[int]] = {}
    for event in events:
        added = measures_of(event)
        held = sums.setdefault((event.at_ms - event.at_ms % HOUR_MS, group_of(event)), [0] * len(MEASURES))
        for index, number in enumerate(added):
            held[index] += number
    rows = [
        {
            "start_ms": start_ms,
            "group_key": group_key(group),
            **dict(zip(DIMENSIONS, group, strict=True)),
            **dict(zip(MEASURES, held, strict=True)),
            "derived": False,
        }
        for (start_ms, group), held in sums.items()
    ]
    rows.sort(key=lambda row: (row["group_key"], row["start_ms"]))  # one order of locks for every poster
    summaries.advance(connection, sums)

    def add(insert: Any) -> Any:
        added_up = {name: HOURLY.c[name] + insert.excluded[name] for name in MEASURES}
        return insert.on_conflict_do_update(
            index_elements=[HOURLY.c.group_key, HOURLY.c.start_ms], set_={**added_up, "derived": False}
        )

    upsert(connection, HOURLY, rows, add)


def period_start(kind: Kind, at_ms: int) -> int:
    """The start of the UTC day, week or month that contains `at_ms`, in Unix ms."""
    if kind == "day":
        return at_ms - at_ms % DAY_MS
    return window_of(f"{kind}|UTC", at_ms).start_ms


def derived_before(connection: Connection) -> int | None:
    """The first hour that the longer rollups lack, in Unix ms; None if they are up to date."""
    first: int | None = connection.scalar(select(func.min(HOURLY.c.start_ms)).where(UNDERIVED))
    return first


def derive(batch: int = 2000) -> int:
    """Update days, weeks and months from the hours that changed; return how many hourly rows were taken.

    Repeated and concurrent runs leave the same rollups: a day becomes the sum of its hours, and weeks, months and summaries
    move by the difference. Each batch is a transaction of its own.
    """
    total = 0
    while True:
        with writing() as connection:
            taken = _derive_batch(connection, batch)
        total += taken
        if taken < batch:
            return total


def _derive_batch(connection: Connection, batch: int) -> int:
    if connection.dialect.name == "postgresql":
        # One run at a time: otherwise the older of two sums of a day could be written last.
        connection.execute(text("SELECT pg_advisory_xact_lock(7021001)"))
    due = (
        select(HOURLY.c.group_key, HOURLY.c.start_ms)
        .where(UNDERIVED)
        .order_by(HOURLY.c.start_ms)
        .limit(batch)
        .with_for_update(skip_locked=True)  # leave rows that a poster has locked to the next run
        .cte("due")
    )
    # Mark the hours before their sums are read: a poster that commits in between clears the mark again.
    changed = connection.execute(
        update(HOURLY)
        .where(HOURLY.c.group_key == due.c.group_key, HOURLY.c.start_ms == due.c.start_ms)
        .values(derived=True)
        .returning(HOURLY.c.group_key, HOURLY.c.start_ms, *(HOURLY.c[name] for name in DIMENSIONS))
    ).all()
    if not changed:
        return 0
    groups: dict[tuple[str, int], Group] = {}
    for key, start_ms, *dimensions in changed:
        groups.setdefault((key, period_start("day", start_ms)), tuple(dimensions))
    before, after = _days(connection, groups), _sums(connection, "day", groups)
    shifts: dict[tuple[Kind, int, str], tuple[Group, list[int]]] = {}
    for (key, day), group in groups.items():
        change = [new - old for new, old in zip(after[key, day], before.get((key, day), NOTHING), strict=True)]
        if any(change):
            for kind in KINDS:
                held = shifts.setdefault((kind, period_start(kind, day), key), (group, [0] * len(MEASURES)))[1]
                for index, number in enumerate(change):
                    held[index] += number
    _shift(connection, shifts)
    summaries.shift(connection, ((kind, start, group, by) for (kind, start, _), (group, by) in shifts.items()))
    return len(changed)


def _shift(connection: Connection, shifts: Mapping[tuple[Kind, int, str], tuple[Group, Sequence[int]]]) -> None:
    """Add to the sums of each kind, start and group."""
    rows = [
        {
            "kind": kind,
            "start_ms": start_ms,
            "group_key": key,
            **dict(zip(DIMENSIONS, group, strict=True)),
            **dict(zip(MEASURES, by, strict=True)),
        }
        for (kind, start_ms, key), (group, by) in sorted(shifts.items(), key=lambda item: item[0])
    ]
    upsert(
        connection,
        ROLLUP,
        rows,
        lambda insert: insert.on_conflict_do_update(
            index_elements=[ROLLUP.c.kind, ROLLUP.c.start_ms, ROLLUP.c.group_key],
            set_={name: ROLLUP.c[name] + insert.excluded[name] for name in MEASURES},
        ),
    )


def _days(connection: Connection, days: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, ...]]:
    """The stored sums of these days, given as (group key, start); days without any are left out."""
    asked = rows_from_json(connection, k=Text(), first=BigInteger()).cte("asked")
    query = (
        select(asked.c.k, asked.c.first, *(ROLLUP.c[name] for name in MEASURES))
        .select_from(asked)
        .outerjoin(  # an outer join, so that SQLite too steps from each day into the index
            ROLLUP,
            and_(ROLLUP.c.group_key == asked.c.k, ROLLUP.c.kind == "day", ROLLUP.c.start_ms == asked.c.first),
        )
    )
    found = connection.execute(query, {"data": msgspec.json.encode(list(days)).decode()})
    return {(key, start): tuple(sums) for key, start, *sums in found if sums[0] is not None}


def _sums(
    connection: Connection, kind: Kind, spans: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], tuple[int, ...]]:
    """The sums of each (group key, start) of `kind` from the next finer rollups: from hours for days, else from days."""
    span = rows_from_json(connection, k=Text(), first=BigInteger(), part=BigInteger()).cte("span")
    if kind == "day":
        source = HOURLY
        inside = and_(source.c.start_ms >= span.c.part, source.c.start_ms < span.c.part + DAY_MS)
        data = [(key, start, start) for key, start in spans]
    else:
        source = ROLLUP
        inside = and_(source.c.kind == "day", source.c.start_ms == span.c.part)
        data = [(key, start, day) for key, start in spans for day in range(start, _end(kind, start), DAY_MS)]
    query = (
        select(span.c.k, span.c.first, *(func.sum(source.c[name]) for name in MEASURES))
        .select_from(span)
        .join(source, and_(source.c.group_key == span.c.k, inside))
        .group_by(span.c.k, span.c.first)
    )
    found = connection.execute(query, {"data": msgspec.json.encode(data).decode()})
    return {(row[0], row[1]): tuple(int(number) for number in row[2:]) for row in found}


def _end(kind: Kind, start_ms: int) -> int:
    return start_ms + DAY_MS if kind == "day" else window_of(f"{kind}|UTC", start_ms).end_ms


class Difference(NamedTuple):
    """A rollup that differs from the rows that it sums."""

    kind: str  # "hour", "day", "week", "month"
    start_ms: int
    group: Group
    kept: tuple[int, ...] | None
    counted: tuple[int, ...] | None


def check(sample: int = 20, seed: int | None = None) -> list[Difference]:
    """Recompute a sample of rollups from the rows that they sum; log each difference as an error and return them all.

    Half of the sample are the newest sums, half are random. Hours are recomputed from entries, which are never edited, so a
    difference means that something is broken.
    """
    chance = random.Random(seed)
    differences: list[Difference] = []
    engine = db.engine
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")  # read both sides at one moment
    with engine.begin() as connection:
        differences += _check_hours(connection, sample, chance)
        for kind in KINDS:
            differences += _check_kind(connection, kind, sample, chance)
        differences += _check_cuts(connection, max(2, sample // 5), chance)  # of each cut and kind
    for difference in differences:
        log.error("a rollup differs from the rows that it sums", **difference._asdict())
    return differences


def _sample(connection: Connection, table: Table, where: Any, size: int, chance: random.Random) -> Sequence[Row[Any]]:
    """The newest rows of a table, and some from a random time on."""
    time_of = table.c.at_ms if "at_ms" in table.c else table.c.start_ms
    query: Select[Any] = select(table).where(where)
    newest = connection.execute(query.order_by(time_of.desc()).limit(size // 2 or 1)).all()
    first = connection.scalar(select(func.min(time_of)).where(where))
    if first is None:
        return []
    moment = chance.randint(first, getattr(newest[0], time_of.name))
    others = connection.execute(query.where(time_of >= moment).order_by(time_of).limit(size // 2)).all()
    return [*newest, *others]


def _check_hours(connection: Connection, size: int, chance: random.Random) -> list[Difference]:
    wanted: dict[tuple[int, Group], None] = {}
    for row in _sample(connection, ENTRY, true(), size, chance):
        names = tuple(getattr(row, name) or "" for name in DIMENSIONS[:-1])
        wanted[row.at_ms - row.at_ms % HOUR_MS, (*names, row.stream)] = None
    for row in _sample(connection, HOURLY, true(), size, chance):
        wanted[row.start_ms, tuple(getattr(row, name) for name in DIMENSIONS)] = None
    measures = entry_measures(ENTRY)
    found = []
    for start_ms, group in wanted:
        of_group = [
            func.coalesce(ENTRY.c[name], "") == part if part == "" else ENTRY.c[name] == part
            for name, part in zip(DIMENSIONS, group, strict=True)
        ]
        counted = connection.execute(
            select(func.count(), *(func.coalesce(func.sum(measures[name]), 0) for name in MEASURES)).where(
                ENTRY.c.at_ms >= start_ms, ENTRY.c.at_ms < start_ms + HOUR_MS, *of_group
            )
        ).one()
        kept = connection.execute(
            select(*(HOURLY.c[name] for name in MEASURES)).where(
                HOURLY.c.group_key == group_key(group), HOURLY.c.start_ms == start_ms
            )
        ).one_or_none()
        sums = tuple(int(number) for number in counted[1:]) if counted[0] else None
        if sums != (tuple(kept) if kept else None):
            found.append(Difference("hour", start_ms, group, tuple(kept) if kept else None, sums))
    return found


def _check_kind(connection: Connection, kind: Kind, size: int, chance: random.Random) -> list[Difference]:
    fresh = derived_before(connection)
    known = ROLLUP.c.kind == kind
    if fresh is not None:
        known = and_(known, ROLLUP.c.start_ms < period_start(kind, fresh))
    rows = {(row.group_key, row.start_ms): row for row in _sample(connection, ROLLUP, known, size, chance)}
    if not rows:
        return []
    counted = _sums(connection, kind, rows)
    return [
        Difference(
            kind,
            start_ms,
            tuple(getattr(row, name) for name in DIMENSIONS),
            kept,
            counted.get((key, start_ms)),
        )
        for (key, start_ms), row in rows.items()
        if (kept := tuple(getattr(row, name) for name in MEASURES)) != counted.get((key, start_ms))
    ]


def _check_cuts(connection: Connection, size: int, chance: random.Random) -> list[Difference]:
    """Compare summaries with the rollups of all groups: a sample of summaries, and those that a sample of groups belongs to."""
    fresh = derived_before(connection)
    wanted: dict[tuple[str, str, int, Group], None] = {}
    for kind in ("hour", *KINDS):
        longer = kind != "hour"
        names = [cut for cut in summaries.CUTS if longer or cut in summaries.HOURLY_CUTS]
        source = ROLLUP if longer else HOURLY
        known = source.c.kind == kind if longer else true()
        mine = summaries.CUT.c.kind == kind
        if longer and fresh is not None:
            before = period_start(cast("Kind", kind), fresh)
            known, mine = and_(known, source.c.start_ms < before), and_(mine, summaries.CUT.c.start_ms < before)
        for row in _sample(connection, source, known, size, chance):
            group = tuple(getattr(row, name) for name in DIMENSIONS)
            for cut in names:
                wanted[cut, kind, row.start_ms, summaries.group_in(cut, group)] = None
        for cut in names:
            for row in _sample(
                connection, summaries.CUT, and_(mine, *summaries.rows_of(cut, sought=False)), size, chance
            ):
                wanted[cut, kind, row.start_ms, tuple(getattr(row, name) for name in DIMENSIONS)] = None
    found = []
    for cut, kind, start_ms, group in wanted:
        kept = summaries.stored(connection, cut, kind, start_ms, group)
        hour = kind == "hour"
        after_ms = start_ms + HOUR_MS if hour else _end(cast("Kind", kind), start_ms)
        counted = summaries.counted(connection, cut, kind, start_ms, after_ms, group, HOURLY if hour else ROLLUP)
        if (kept or NOTHING) != (counted or NOTHING):
            found.append(Difference(f"{cut} {kind}", start_ms, group, kept, counted))
    return found
