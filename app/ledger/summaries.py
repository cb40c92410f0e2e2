"""Summaries: the rollups' sums with dimensions left out, so that sums over everybody read few rows.

A cut is one choice of dimensions; everything else is added up. Its days, weeks and months move by exactly the changes that
`rollups.derive` makes to the days of all groups, in the same transaction, so both are equally up to date. Cuts with very
few groups also have hours, which advance with the entries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Index, PrimaryKeyConstraint, String, Table, func, select, text
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import Base
from app.ledger.measures import DAY_MS, DIMENSIONS, MEASURES, Group, Kind, Summed, group_key, upsert

# Coarsest first. A dimension that a cut does not name is empty in its rows, and `stream` false.
CUTS: dict[str, tuple[str, ...]] = {
    "whole": ("api_type", "stream"),
    "provider": ("provider_id", "stream"),
    "team": ("team_id",),
    "person": ("person_id",),
    "model": ("model", "provider_id", "endpoint", "api_type", "stream"),
    "payer": ("person_id", "team_id", "stream"),
}
HOURLY_CUTS = ("whole", "provider")
# Dimensions that the indexes of cuts find; teams have one of their own, and small cuts need none.
FOUND_BY = ("model", "person_id")

OF_TEAMS = text("team_id != ''")  # spelled as in the index, so that a query can use it
OF_PEOPLE, OF_MODELS, OF_PAYERS = (text(f"cut = '{cut}'") for cut in ("person", "model", "payer"))
OF_BILLS = text("cut = 'payer' AND kind = 'month'")
KEY = ("cut", "kind", "start_ms", "group_key")  # in this order, so that rows that change together are stored together
INCLUDED = ("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano")  # columns in those indexes

# By cut, kind, start and group: the amount added to each measure.
Moved = dict[tuple[str, str, int, Group], list[int]]


class UsageCut(Summed, Base):
    """The sums of one hour, day, week or month of UTC by the dimensions of one cut."""

    __tablename__ = "usage_cut"
    __table_args__ = (
        PrimaryKeyConstraint(*KEY),
        Index("ix_usage_cut_found", "model", "person_id", "kind", "start_ms"),
        Index("ix_usage_cut_of_teams", "team_id", "kind", "start_ms", sqlite_where=OF_TEAMS, postgresql_where=OF_TEAMS),
        Index(  # everybody, or every model, in a span, without a step into the table for each
            "ix_usage_cut_people",
            "kind",
            "start_ms",
            sqlite_where=OF_PEOPLE,
            postgresql_where=OF_PEOPLE,
            postgresql_include=["person_id", *INCLUDED],
        ),
        Index(
            "ix_usage_cut_models",
            "kind",
            "start_ms",
            "model",
            sqlite_where=OF_MODELS,
            postgresql_where=OF_MODELS,
            postgresql_include=["api_type", *INCLUDED],
        ),
        Index(
            "ix_usage_cut_bills",
            "start_ms",
            sqlite_where=OF_BILLS,
            postgresql_where=OF_BILLS,
            postgresql_include=["person_id", "team_id", *INCLUDED, "cached_tokens"],
        ),
    )

    cut: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(8))
    start_ms: Mapped[int]


CUT = cast("Table", UsageCut.__table__)


def fitting(needed: Collection[str]) -> str | None:
    """The coarsest cut with all of these dimensions; None if no cut has them."""
    return next((name for name, kept in CUTS.items() if set(needed) <= set(kept)), None)


def group_in(cut: str, group: Sequence[Any]) -> Group:
    """The group in a cut to which a group of all dimensions belongs."""
    kept = CUTS[cut]
    return tuple(
        part if name in kept else (False if name == "stream" else "")
        for name, part in zip(DIMENSIONS, group, strict=True)
    )


def name_of(cut: str, group: Group) -> str:
    """The name of a cut's group, unique over all cuts."""
    return group_key((*group, cut))


def advance(connection: Connection, hours: Mapping[tuple[int, Group], Sequence[int]]) -> None:
    """Add the amounts added to hours of all groups, by start and group, inside the caller's transaction."""
    moved: Moved = {}
    for (start_ms, group), added in hours.items():
        for cut in HOURLY_CUTS:
            _add(moved, cut, "hour", start_ms, group_in(cut, group), added)
    _upsert(connection, moved)


def shift(connection: Connection, changes: Iterable[tuple[Kind, int, Group, Sequence[int]]]) -> None:
    """Move days, weeks and months by the changes of their groups: kind, start, group, and the change of each measure."""
    moved: Moved = {}
    inside: dict[Group, list[tuple[str, Group]]] = {}  # each group changes in three kinds
    for kind, start_ms, group, change in changes:
        if group not in inside:
            inside[group] = [(cut, group_in(cut, group)) for cut in CUTS]
        for cut, part in inside[group]:
            _add(moved, cut, kind, start_ms, part, change)
    _upsert(connection, moved)


def _add(moved: Moved, cut: str, kind: str, start_ms: int, group: Group, added: Sequence[int]) -> None:
    held = moved.setdefault((cut, kind, start_ms, group), [0] * len(MEASURES))
    for index, number in enumerate(added):
        held[index] += number


def _upsert(connection: Connection, moved: Moved) -> None:
    names: dict[tuple[str, Group], str] = {}
    rows = []
    for (cut, kind, start_ms, group), held in moved.items():
        name = names.get((cut, group)) or names.setdefault((cut, group), name_of(cut, group))
        row = {"cut": cut, "kind": kind, "start_ms": start_ms, "group_key": name}
        rows.append(row | dict(zip(DIMENSIONS, group, strict=True)) | dict(zip(MEASURES, held, strict=True)))
    rows.sort(key=itemgetter(*KEY))  # one order of locks for every poster
    upsert(
        connection,
        CUT,
        rows,
        lambda insert: insert.on_conflict_do_update(
            index_elements=[CUT.c[name] for name in KEY],
            set_={name: CUT.c[name] + insert.excluded[name] for name in MEASURES},
        ),
    )


def counted(
    connection: Connection, cut: str, kind: str, start_ms: int, after_ms: int, group: Group, source: Table
) -> tuple[int, ...] | None:
    """Recompute one sum of a cut: hours and days from all groups in `source`, longer ones from the cut's own days. None if
    there is no row."""
    if kind in ("hour", "day"):
        table = source
        where = [source.c[name] == part for name, part in zip(DIMENSIONS, group, strict=True) if name in CUTS[cut]]
        where += [source.c.start_ms >= start_ms, source.c.start_ms < after_ms]
        if kind == "day":
            where.append(source.c.kind == kind)
    else:
        table = CUT
        where = [*_of(cut, "day", group), CUT.c.start_ms.in_(range(start_ms, after_ms, DAY_MS))]
    found = connection.execute(
        select(func.count(), *(func.coalesce(func.sum(table.c[name]), 0) for name in MEASURES)).where(*where)
    ).one()
    return tuple(int(number) for number in found[1:]) if found[0] else None


def stored(connection: Connection, cut: str, kind: str, start_ms: int, group: Group) -> tuple[int, ...] | None:
    """One stored sum of a cut; None if there is none."""
    found = connection.execute(
        select(*(CUT.c[name] for name in MEASURES)).where(*_of(cut, kind, group), CUT.c.start_ms == start_ms)
    ).one_or_none()
    return tuple(found) if found else None


def _of(cut: str, kind: str, group: Group) -> list[ColumnElement[bool]]:
    return [CUT.c.cut == cut, CUT.c.kind == kind, CUT.c.group_key == name_of(cut, group)]


def rows_of(cut: str, *, sought: bool) -> list[Any]:
    """Conditions for a cut's rows. If they are `sought` by model or person, also that the index's leading columns are empty
    where the cut lacks them, so that the index can be used."""
    named = {"person": OF_PEOPLE, "model": OF_MODELS, "payer": OF_PAYERS}.get(cut, CUT.c.cut == cut)
    return [named, *(CUT.c[name] == "" for name in FOUND_BY if sought and name not in CUTS[cut])]
