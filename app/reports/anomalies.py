"""Anomalies: days on which a team, or a person outside teams, spent far more or failed far more often than usual for them.

A day of UTC is measured against the 14 days before it of the same payer: how many standard deviations it is above their mean.
Who has used little before has no usual, and is not judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Literal, NamedTuple

from sqlalchemy import case, func, select

from app.extensions import db
from app.ledger.measures import DAY_MS
from app.reports.planner import Filters, Reader, summed, used_in

Measure = Literal["cost_nano", "errors"]
MEASURES: tuple[Measure, ...] = ("cost_nano", "errors")

HISTORY_DAYS = 14
LEAST_DAYS = 3  # of the history that have usage
DEVIATIONS = 3.0
LEAST_SPREAD = 0.1  # of the mean: what is always alike must not make every small change an anomaly
LEAST: dict[Measure, int] = {"cost_nano": 10_000_000, "errors": 10}  # a hundredth of the currency unit; ten errors


class Anomaly(NamedTuple):
    """One measure of the day that starts at `start_ms` (Unix ms): its `amount` (nano-units or errors), the mean of the days
    before, and how many standard deviations lie between. One of the ids is empty."""

    start_ms: int
    team_id: str
    person_id: str
    measure: Measure
    amount: int
    usual: float
    deviations: float


def find(reader: Reader, first_ms: int, days: int) -> list[Anomaly]:
    """The anomalies of `days` days of UTC from `first_ms` on, the strongest first.

    Raises `PermissionError` for a reader who may not see everything.
    """
    if not reader.sees_everything:
        raise PermissionError("only people who see everything can read anomalies")
    begin, end = first_ms - HISTORY_DAYS * DAY_MS, first_ms + days * DAY_MS
    edges = range(begin, end, DAY_MS)
    measures = ("requests", *MEASURES)
    used = used_in(reader, Filters(), begin, end, edges, of=["team_id", "person_id"], measures=measures).subquery(
        "used"
    )
    team = func.coalesce(used.c.team_id, "")
    person = case((team == "", used.c.person_id), else_="")
    groups = (used.c.window, team, person)
    amounts: dict[tuple[str, str], dict[int, tuple[int, ...]]] = defaultdict(dict)
    for start_ms, team_id, person_id, *sums in db.session.execute(
        select(*groups, *summed(used, measures)).group_by(*groups)
    ):
        amounts[team_id, person_id][start_ms] = tuple(number or 0 for number in sums)
    nothing = (0,) * len(measures)
    found: list[Anomaly] = []
    for (team_id, person_id), by_day in amounts.items():
        history = [by_day.get(start, nothing) for start in edges]
        for at in range(HISTORY_DAYS, len(history)):
            before = history[at - HISTORY_DAYS : at]
            if sum(requests > 0 for requests, *_ in before) < LEAST_DAYS:
                continue
            for index, measure in enumerate(MEASURES, start=1):
                amount, usual = history[at][index], [day[index] for day in before]
                above = deviations(amount, usual)
                if amount >= LEAST[measure] and above >= DEVIATIONS:
                    found.append(Anomaly(edges[at], team_id, person_id, measure, amount, fmean(usual), above))
    return sorted(found, key=lambda one: (-one.deviations, one))


def deviations(amount: int, usual: Sequence[int]) -> float:
    """How many standard deviations `amount` is above the mean of `usual`; below it, the number is negative."""
    mean = fmean(usual)
    return (amount - mean) / max(pstdev(usual), LEAST_SPREAD * abs(mean), 1.0)
