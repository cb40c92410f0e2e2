"""Chargeback adds up to the ledger, and who owns a team reads its usage and nobody else's."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from app import clock
from app.ledger import posting, rollups
from app.reports import chargeback, latency, requests
from app.reports import usage as usage_reports
from app.reports.planner import NONE, TeamReader
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


def test_who_owns_a_team_reads_its_usage_beside_their_own_and_nothing_else(ledger: Flask) -> None:
    events = some_events(300, seed=5)
    posting.post(events)
    rollups.derive()
    allowed = [told for told in events if told.person_id == "ada" or told.team_id == "team-1"]
    assert len(allowed) < len(events)
    assert usage_reports.totals(LEAD).cost_nano == sum(told.cost_nano for told in allowed)
    for person_id in (None, "bob"):
        filters = Filters(team_id="team-1", person_id=person_id)
        wanted = {
            told.request_id for told in events if told.team_id == "team-1" and person_id in (None, told.person_id)
        }
        page = requests.search(LEAD, filters=filters, limit=1000)
        assert {entry.request_id for entry in page.entries} == wanted
        assert usage_reports.totals(LEAD, filters=filters).requests == len(wanted)
        assert latency.report(LEAD, filters, NONE).errors.counted == sum(
            told.outcome == "error" for told in events if told.request_id in wanted
        )
    assert requests.search(LEAD, filters=Filters(person_id="bob")).total == sum(
        told.person_id == "bob" and told.team_id == "team-1" for told in events
    )
    seen = {told.request_id for told in events if requests.entries_of(LEAD, told.request_id)}
    assert seen == {told.request_id for told in allowed}


def test_who_owns_a_team_reads_the_use_of_its_keys(ledger: Flask) -> None:
    posting.post(
        [
            event(key_id="ours", team_id="team-1", person_id="bob"),
            event(key_id="theirs", team_id="team-2", person_id="bob"),
        ]
    )
    assert set(requests.last_use(LEAD, ["ours", "theirs"])) == {"ours"}
    assert [share.name for share in usage_reports.by(LEAD, "key_id")] == ["ours"]


def test_without_a_team_a_reader_reads_their_own(ledger: Flask) -> None:
    posting.post([event(person_id="ada"), event(person_id="bob", team_id="team-1"), event(person_id="", team_id="")])
    assert usage_reports.totals(TeamReader("ada", False, ())).requests == 1
    assert usage_reports.totals(TeamReader("", False, ("team-1",))).requests == 0
