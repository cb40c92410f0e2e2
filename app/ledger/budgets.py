"""What each budget has spent according to the ledger: one sum for each scope and period, advanced with the entries.

Redis's counters decide about requests; they are compared with these sums and rebuilt from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from sqlalchemy import ColumnElement, Connection, Index, Table, func, literal, select, tuple_, union_all
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import Base, db
from app.ledger.entries import ENTRY, Unbounded
from app.ledger.measures import HOUR_MS, upsert
from app.ledger.rollups import HOURLY
from app.metering.periods import Window
from app.metering.scopes import team_and_person
from app.metering.usage import UsageEvent


class ScopeSpent(Base):
    """The amount charged to one counter: a scope in one period, by the period's name (`app.metering.periods`)."""

    __tablename__ = "scope_spent"
    __table_args__ = (Index(None, "last_at_ms"),)

    kind: Mapped[Unbounded] = mapped_column(primary_key=True)
    id: Mapped[Unbounded] = mapped_column(primary_key=True)
    period: Mapped[Unbounded] = mapped_column(primary_key=True)
    spent_nano: Mapped[int]
    entries: Mapped[int]
    last_at_ms: Mapped[int]  # the latest admission among its entries


SPENT = cast("Table", ScopeSpent.__table__)


class Counter(NamedTuple):
    """The name of one counter: scope kind, scope id, period name."""

    kind: str
    id: str
    period: str


def charged_nano(event: UsageEvent) -> int:
    """The nano-units that an event charges to its scopes: its cost, less a credit. A repair charges nothing: it corrects a
    counter, and the ledger was right already."""
    return event.cost_nano + (event.moved_nano if event.kind == "credit" else 0)


def advance(connection: Connection, events: Iterable[UsageEvent]) -> None:
    """Charge events to their scopes, inside the caller's transaction. Pass only events whose entries are new."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for event in events:
        for counter in event.scopes:
            total = sums.setdefault(counter, [0, 0, 0])
            total[0] += charged_nano(event)
            total[1] += 1
            total[2] = max(total[2], event.at_ms)
    rows = [
        {
            "kind": kind,
            "id": id,
            "period": period,
            "spent_nano": total[0],
            "entries": total[1],
            "last_at_ms": total[2],
        }
        for (kind, id, period), total in sorted(sums.items())  # always locked in the same order
    ]
    later = func.max if connection.dialect.name == "sqlite" else func.greatest
    upsert(
        connection,
        SPENT,
        rows,
        lambda insert: insert.on_conflict_do_update(
            index_elements=[SPENT.c.kind, SPENT.c.id, SPENT.c.period],
            set_={
                "spent_nano": SPENT.c.spent_nano + insert.excluded.spent_nano,
                "entries": SPENT.c.entries + insert.excluded.entries,
                "last_at_ms": later(SPENT.c.last_at_ms, insert.excluded.last_at_ms),
            },
        ),
    )


def spent(kind: str, id: str, period: str) -> int:
    """Nano-units charged to a scope in the period with this name; 0 if none."""
    query = select(SPENT.c.spent_nano).where(SPENT.c.kind == kind, SPENT.c.id == id, SPENT.c.period == period)
    return db.session.execute(query).scalar() or 0


def spent_of(counters: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], int]:
    """Nano-units of many counters; those never charged are left out."""
    return {counter: nano for counter, (nano, _) in spent_and_entries(counters).items()}


def spent_and_entries(counters: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Nano-units and the number of entries of many counters; those never charged are left out."""
    found: dict[tuple[str, str, str], tuple[int, int]] = {}
    for start in range(0, len(counters), 500):
        query = select(SPENT.c.kind, SPENT.c.id, SPENT.c.period, SPENT.c.spent_nano, SPENT.c.entries).where(
            tuple_(SPENT.c.kind, SPENT.c.id, SPENT.c.period).in_(counters[start : start + 500])
        )
        found.update({(row[0], row[1], row[2]): (row[3], row[4]) for row in db.session.execute(query)})
    return found


def charged_since(since_ms: int, limit: int = 10_000) -> dict[tuple[str, str, str], int]:
    """Counters charged by requests admitted at or after `since_ms`, latest first, with their nano-units; at most `limit`."""
    query = (
        select(SPENT.c.kind, SPENT.c.id, SPENT.c.period, SPENT.c.spent_nano)
        .where(SPENT.c.last_at_ms >= since_ms)
        .order_by(SPENT.c.last_at_ms.desc())
        .limit(limit)
    )
    return {(row[0], row[1], row[2]): row[3] for row in db.session.execute(query)}


def spent_between(kind: str, id: str, from_ms: int, to_ms: int) -> int:
    """Nano-units that a scope used in [from_ms, to_ms), exact to the millisecond, whatever its period was then.

    A budget that is new in mid-period, or whose period changed, starts from here. A member's id is
    `<team id>:<person id>`. Raises `ValueError` for an unknown kind.
    """
    return spent_in(kind, id, (from_ms, to_ms))[0]


def spent_in(kind: str, id: str, *spans: tuple[int, int]) -> list[int]:
    """The same for several spans, in their order, by one query."""
    pieces = [
        select(literal(place), func.sum(table.c.cost_nano)).where(
            moment >= start, moment < end, *_of_scope(table, kind, id)
        )
        for place, span in enumerate(spans)
        for table, moment, start, end in _parts(*span)
        if start < end
    ]
    totals = [0] * len(spans)
    for place, cost_nano in db.session.execute(union_all(*pieces)) if pieces else ():
        totals[place] += int(cost_nano or 0)
    return totals


def _parts(from_ms: int, to_ms: int) -> list[tuple[Table, ColumnElement[int], int, int]]:
    """The parts of a span: whole hours from rollups, the rest at both ends from entries."""
    first_hour, last_hour = -(-from_ms // HOUR_MS) * HOUR_MS, to_ms // HOUR_MS * HOUR_MS
    if first_hour >= last_hour:
        return [(ENTRY, ENTRY.c.at_ms, from_ms, to_ms)]
    return [
        (ENTRY, ENTRY.c.at_ms, from_ms, first_hour),
        (HOURLY, HOURLY.c.start_ms, first_hour, last_hour),
        (ENTRY, ENTRY.c.at_ms, last_hour, to_ms),
    ]


def open_counter(kind: str, id: str, window: Window) -> int:
    """Complete the counter of a period that starts counting in its middle, and return the nano-units that it lacked.

    Call it in the transaction that gives the scope this period. It adds the usage charged to other counters since the
    period began, so that the meter can be recounted from the sums alone.
    """
    known = spent(kind, id, window.name) + _credited(kind, id, window)
    lacking = spent_between(kind, id, window.start_ms, window.end_ms) - known
    if lacking <= 0:
        return 0
    row = {"kind": kind, "id": id, "period": window.name, "spent_nano": lacking, "entries": 0, "last_at_ms": 0}
    upsert(
        db.session.connection(),
        SPENT,
        [row],
        lambda insert: insert.on_conflict_do_update(
            index_elements=[SPENT.c.kind, SPENT.c.id, SPENT.c.period],
            set_={"spent_nano": SPENT.c.spent_nano + insert.excluded.spent_nano},
        ),
    )
    return lacking


def _credited(kind: str, id: str, window: Window) -> int:
    """Nano-units that credits gave back to a counter, which its sum rightly lacks. Credits are few; the index finds them by
    their empty person."""
    query = select(ENTRY.c.moved_nano, ENTRY.c.scopes).where(
        ENTRY.c.person_id == "", ENTRY.c.kind == "credit", ENTRY.c.at_ms >= window.start_ms
    )
    counter = [kind, id, window.name]
    return -sum(int(moved) for moved, scopes in db.session.execute(query) if scopes == [counter])


def _of_scope(table: Table, kind: str, id: str) -> list[ColumnElement[bool]]:
    """Conditions for the rows charged to a scope. Only the team pays for its keys, so personal scopes leave those rows out."""
    team = func.coalesce(table.c.team_id, "")
    match kind:
        case "organisation":
            return []
        case "key":
            return [table.c.key_id == id]
        case "subscription":
            return [table.c.subscription_id == id]
        case "team":
            return [table.c.team_id == id]
        case "user":
            return [table.c.person_id == id, team == ""]
        case "member":
            team_id, person_id = team_and_person(kind, id)
            return [table.c.team_id == team_id, table.c.person_id == person_id]
    raise ValueError(f"unknown scope {kind!r}")
