"""Reading usage: who may read what, and from which rollups and entries any span is put together."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from flask import Flask
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, create_engine, literal, select

from app.ledger import posting, rollups
from app.ledger.measures import DAY_MS, HOUR_MS
from app.ledger.rollups import HOURLY, ROLLUP, period_start
from app.reports import latency, planner, requests
from app.reports import usage as usage_reports
from app.reports.planner import NONE, TeamReader
from app.reports.usage import Filters
from tests.ledger.books import ADMIN, NOON, event, some_events

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


ADA = TeamReader("ada", False, ())
NOBODYS = event(person_id="", key_id=None, kind="credit", moved_nano=-5, cost_nano=0)


@pytest.mark.parametrize("derived", [True, False])
def test_a_reader_without_an_id_reads_nothing(ledger: Flask, derived: bool) -> None:
    """Not what belongs to nobody either, such as credits and repairs."""
    posting.post([event(), NOBODYS])
    if derived:
        rollups.derive()
    for reader in (TeamReader("", False, ()), TeamReader("", False, ("team-1",))):
        assert usage_reports.totals(reader).requests == 0
        assert requests.search(reader).total == 0
        assert requests.entries_of(reader, NOBODYS.request_id) == []


MOMENTS = st.integers(0, 100 * 24).map(lambda hours: hours * HOUR_MS + NOON - 60 * DAY_MS) | st.integers(
    NOON - 60 * DAY_MS, NOON + 40 * DAY_MS
)


@given(MOMENTS, MOMENTS, st.none() | MOMENTS, st.sets(st.sampled_from(planner.KINDS)))
def test_the_parts_of_a_span_cover_it_once_and_each_only_whole_rows_that_are_derived(
    one: int, other: int, fresh: int | None, kinds: set[Any]
) -> None:
    first, after = sorted((one, other))
    assume(first < after)
    fresh = None if fresh is None else fresh - fresh % HOUR_MS
    sources = [
        planner._ENTRIES,
        planner._HOURS,
        *(planner._Source(ROLLUP, kind) for kind in planner.KINDS if kind in kinds),
    ]
    parts = planner._parts(sources, first, after, fresh)
    assert parts[0][1] == first and parts[-1][2] == after
    for (_, _, end), (_, start, _) in pairwise(parts):
        assert end == start
    for source, start, end in parts:
        if source.table is HOURLY:
            assert start % HOUR_MS == end % HOUR_MS == 0
        if source.kind is not None:
            assert {period_start(source.kind, start), period_start(source.kind, end)} == {start, end}
            assert fresh is None or end <= fresh


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40, unique=True).map(sorted), st.integers(0, 10**6))
def test_a_moment_is_in_the_last_window_that_begins_before_it(edges: list[int], moment: int) -> None:
    moment = max(moment, edges[0])
    query = select(planner._found(literal(moment, BigInteger), edges))
    with create_engine("sqlite://").connect() as connection:
        assert connection.scalar(query) == max(edge for edge in edges if edge <= moment)


def test_what_was_not_derived_yet_is_read_from_the_hours(ledger: Flask) -> None:
    posting.post([event(at_ms=NOON - 3 * DAY_MS)])
    rollups.derive()
    posting.post([event(at_ms=NOON - 3 * DAY_MS), event(at_ms=NOON - 2 * DAY_MS)])
    filters = Filters(from_ms=NOON - 10 * DAY_MS, to_ms=NOON)
    assert usage_reports.totals(ADA, filters=filters).requests == 3


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"error_code": "timeout"}, 1),
        ({"status": 502}, 2),
        ({"status": "error"}, 2),
        ({"status": "cancelled"}, 1),
        ({"status": "error", "error_code": "timeout"}, 1),
        ({"status": "ok"}, 1),
    ],
)
def test_filters_that_rollups_do_not_have_read_the_entries(ledger: Flask, filters: dict[str, Any], count: int) -> None:
    posting.post(
        [
            event(),
            event(outcome="error", status=502, error_code="timeout"),
            event(outcome="error", status=502, error_code="other"),
            event(outcome="cancelled", status=499),
        ]
    )
    rollups.derive()
    assert usage_reports.totals(ADMIN, filters=Filters(**filters)).requests == count


def test_a_filter_by_a_team_finds_the_teams_usage_in_every_cut(ledger: Flask) -> None:
    posting.post([event(team_id="team-1"), event(team_id="team-2"), event()])
    rollups.derive()
    for filters in (Filters(team_id="team-1"), Filters(team_id="team-1", model="echo")):
        assert usage_reports.totals(ADMIN, filters=filters).requests == 1
        assert usage_reports.totals(LEAD, filters=filters).requests == 1
