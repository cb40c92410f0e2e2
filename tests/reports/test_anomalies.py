"""A day is compared with the same payer's own 14 days before it."""

from __future__ import annotations

import pytest
from flask import Flask

from app.extensions import db
from app.ledger import posting, rollups
from app.ledger.measures import DAY_MS
from app.metering.usage import UsageEvent
from app.reports import anomalies
from tests.ledger.books import ADA, ADMIN, NOON, event

TODAY = NOON - NOON % DAY_MS
USUAL = 50_000_000


def days(costs: list[int], **fields: object) -> list[UsageEvent]:
    """One call a day, the last one today."""
    first = NOON - (len(costs) - 1) * DAY_MS
    return [event(at_ms=first + at * DAY_MS, cost_nano=cost, **fields) for at, cost in enumerate(costs)]


@pytest.mark.parametrize("derived", [True, False], ids=["derived", "underived"])
def test_a_day_far_above_the_payers_own_history_is_found(ledger: Flask, derived: bool) -> None:
    posting.post(days([USUAL] * 14 + [10 * USUAL]))
    posting.post(days([USUAL, 3 * USUAL] * 7 + [4 * USUAL], person_id="bob"))  # it is as unsteady as ever
    posting.post(days([USUAL] * 14 + [9 * USUAL], team_id="team-1", person_id="cy"))
    posting.post(days([0] * 12 + [USUAL, USUAL] + [90 * USUAL], person_id="dora")[12:])  # she has just begun
    if derived:
        rollups.derive()
    found = anomalies.find(ADMIN, TODAY, 1)
    assert [(one.start_ms, one.team_id, one.person_id, one.measure, one.amount) for one in found] == [
        (TODAY, "", "ada", "cost_nano", 10 * USUAL),
        (TODAY, "team-1", "", "cost_nano", 9 * USUAL),
    ]
    assert (found[0].usual, round(found[0].deviations)) == (USUAL, 90)
    assert anomalies.find(ADMIN, TODAY - DAY_MS, 1) == []


def test_errors_are_found_and_few_of_them_are_none(ledger: Flask) -> None:
    posting.post(days([0] * 15))
    posting.post([event(cost_nano=0, outcome="error", status=502) for _ in range(anomalies.LEAST["errors"] - 1)])
    assert anomalies.find(ADMIN, TODAY, 1) == []
    posting.post([event(cost_nano=0, outcome="error", status=502)])
    db.session.rollback()
    assert [(one.measure, one.amount) for one in anomalies.find(ADMIN, TODAY, 1)] == [("errors", 10)]


def test_who_does_not_see_everything_reads_none(ledger: Flask) -> None:
    with pytest.raises(PermissionError):
        anomalies.find(ADA, TODAY, 7)
