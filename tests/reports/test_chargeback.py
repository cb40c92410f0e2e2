"""Chargeback adds up to the ledger."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from app import clock
from app.ledger import posting, rollups
from app.ledger.measures import DAY_MS
from app.reports import chargeback
from app.reports import usage as usage_reports
from app.reports.planner import TeamReader
from app.reports.usage import Filters
from tests.conftest import SetClock
from tests.ledger.books import ADMIN, NOON, Somebody, event, some_events

LEAD = TeamReader("ada", False, ("team-1",))


@pytest.mark.parametrize("derived", [True, False], ids=["derived", "underived"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_charges_of_a_month_add_up_to_its_entries(ledger: Flask, derived: bool, count: int) -> None:
    events = [*some_events(300, seed=12), event(team_id="team-2", cost_nano=7), event(kind="late", cost_nano=11)]
    posting.post(events)
    if derived:
        rollups.derive()
    months = chargeback.months_before(NOON, count)
    assert len(months) == count
    assert months[-1][0] <= NOON < months[-1][1]
    found = chargeback.charges(ADMIN, months)
    expected: dict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for told in events:
        for start, end in months:
            if start <= told.at_ms < end:
                sums = expected[start, told.team_id or "", "" if told.team_id else told.person_id]
                sums[0] += told.cost_nano
                sums[1] += told.kind == "usage"
    assert {(one.start_ms, one.team_id, one.person_id): [one.cost_nano, one.requests] for one in found} == expected
    whole = usage_reports.totals(ADMIN, filters=Filters(from_ms=months[0][0], to_ms=months[-1][1]))
    assert sum(one.cost_nano for one in found) == whole.cost_nano
    assert [one.start_ms for one in found] == sorted((one.start_ms for one in found), reverse=True)


def test_the_months_before_a_turn_of_the_calendar_follow_each_other(turn: datetime, set_clock: SetClock) -> None:
    month = turn.year * 12 + turn.month - 1
    for _ in range(2):
        found = chargeback.months_before(clock.now_ms(), 15)
        begun = [datetime.fromtimestamp(start / 1000, UTC) for start, _ in found]
        assert begun == [datetime(*year_and_month(month - back), 1, tzinfo=UTC) for back in range(14, -1, -1)]
        assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]
        assert found[-1][0] <= clock.now_ms() < found[-1][1]
        set_clock.move(20)
        month += (turn + timedelta(seconds=20)).month != turn.month


def year_and_month(month: int) -> tuple[int, int]:
    """Year and month of a month that is counted from the year 0."""
    return month // 12, month % 12 + 1


def test_chargeback_is_for_admins(ledger: Flask) -> None:
    for reader in (Somebody("ada"), LEAD):
        with pytest.raises(PermissionError):
            chargeback.charges(reader, chargeback.months_before(NOON, 1))


@pytest.mark.parametrize("derived", [True, False], ids=["derived", "underived"])
@pytest.mark.parametrize("seed", range(4))
def test_the_charges_of_days_add_up_to_their_entries_to_the_nano(ledger: Flask, derived: bool, seed: int) -> None:
    events = [
        *some_events(120, seed=seed), event(kind="late", cost_nano=11), event(provider_id=None, cost_nano=3),
        event(kind="credit", cost_nano=-5, person_id=""),
    ]  # fmt: skip
    posting.post(events)
    if derived:
        rollups.derive()
    months = chargeback.months_before(NOON, 2)
    found = [one for lines in chargeback.daily_charges(ADMIN, months, piece=7) for one in lines]
    expected: dict[tuple[object, ...], int] = defaultdict(int)
    for told in events:
        if months[0][0] <= told.at_ms < months[-1][1]:
            day = told.at_ms - told.at_ms % DAY_MS
            names = told.team_id, told.person_id, told.key_id, told.model, told.provider_id
            expected[(day, *(name or "" for name in names))] += told.cost_nano
    assert {one[:6]: one.cost_nano for one in found} == expected
    assert [one[:6] for one in found] == sorted(one[:6] for one in found)
    with pytest.raises(PermissionError):
        next(chargeback.daily_charges(LEAD, months))
