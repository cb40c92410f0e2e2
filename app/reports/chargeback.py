"""Chargeback: usage and cost by month for each team, and for each person's personal usage, from the rollups.

A key's team pays for its calls, otherwise its person. Months are in UTC. The rows of a month add up to the ledger's total.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from sqlalchemy import case, func, select

from app.extensions import db
from app.ledger.measures import DAY_MS
from app.metering.periods import window_of
from app.metering.quantities import NAMES
from app.reports.planner import Filters, Reader, Sums, something, summed, used_in

OF_DAY = ("team_id", "person_id", "key_id", "model", "provider_id")
BILLED = ("requests", "errors", *NAMES, "cost_nano")


class Charge(Sums, kw_only=True):
    """The `BILLED` measures of one team, or of one person's personal usage, in the month that starts at `start_ms` (Unix ms)."""

    start_ms: int
    team_id: str  # empty for personal usage
    person_id: str  # empty for a team's

    @property
    def payer(self) -> str:
        """The id of the team or, without one, of the person."""
        return self.team_id or self.person_id


class DailyCharge(NamedTuple):
    """What one key, or one person's access tokens, used of one model at one provider on one day of UTC, from `start_ms` (Unix
    ms). Ids and names are empty where there is none."""

    start_ms: int
    team_id: str
    person_id: str
    key_id: str
    model: str
    provider_id: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_nano: int


def months_before(at_ms: int, count: int) -> list[tuple[int, int]]:
    """The starts and ends of the last `count` months in UTC up to that of `at_ms`, oldest first, in Unix ms."""
    months: list[tuple[int, int]] = []
    while len(months) < count and at_ms >= 0:
        month = window_of("month|UTC", at_ms)
        months.append((month.start_ms, month.end_ms))
        at_ms = month.start_ms - 1
    return months[::-1]


def charges(reader: Reader, months: Sequence[tuple[int, int]]) -> list[Charge]:
    """The charges of consecutive months, latest month first, and in each the highest cost first.

    Raises `PermissionError` for a reader who may not see everything.
    """
    if not reader.sees_everything:
        raise PermissionError("only people who see everything can read chargeback")
    if not months:
        return []
    starts = [start for start, _ in months]
    used = used_in(
        reader, Filters(), starts[0], months[-1][1], starts, of=["team_id", "person_id"], measures=BILLED
    ).subquery("used")
    team = func.coalesce(used.c.team_id, "")
    person = case((team == "", used.c.person_id), else_="")
    columns = {column.name: column for column in summed(used, BILLED)}
    query = (
        select(used.c.window, team.label("team_id"), person.label("person_id"), *columns.values())
        .group_by(used.c.window, team, person)
        .having(something(columns.values()))
        .order_by(used.c.window.desc(), columns["cost_nano"].element.desc(), team, person)
    )
    return [
        Charge(start_ms=start_ms, team_id=team_id, person_id=person_id, **dict(zip(BILLED, sums, strict=True)))
        for start_ms, team_id, person_id, *sums in db.session.execute(query).all()
    ]


def daily_charges(reader: Reader, months: Sequence[tuple[int, int]], piece: int = 500) -> Iterator[list[DailyCharge]]:
    """The charges of consecutive months day by day, oldest first, in lists of `piece`; their costs add up to the ledger's.

    Raises `PermissionError` for a reader who may not see everything.
    """
    if not reader.sees_everything:
        raise PermissionError("only people who see everything can read chargeback")
    sums = DailyCharge._fields[len(OF_DAY) + 1 :]
    for start, end in months:
        used = used_in(reader, Filters(), start, end, range(start, end, DAY_MS), of=OF_DAY, measures=sums).subquery(
            "used"
        )
        groups = [used.c.window, *(func.coalesce(used.c[name], "").label(name) for name in OF_DAY)]
        columns = summed(used, sums)
        found = iter(
            db.session.execute(
                select(*groups, *columns).group_by(*groups).having(something(columns)).order_by(*groups)
            ).all()
        )
        while rows := [DailyCharge(*row) for row in islice(found, piece)]:
            yield rows
