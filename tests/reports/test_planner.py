"""Reading usage: who may read what, and from which rollups and entries any span is put together."""

from __future__ import annotations

from flask import Flask

from app.ledger import posting, rollups
from app.reports import latency, requests
from app.reports import usage as usage_reports
from app.reports.planner import NONE, TeamReader
from app.reports.usage import Filters
from tests.ledger.books import event, some_events

LEAD = TeamReader("ada", False, ("team-1",))


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
