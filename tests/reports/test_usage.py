"""Reports: what pages and programs are told equals the entries, and nobody reads somebody else's."""

from __future__ import annotations

import random
from datetime import datetime
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import msgspec
import pytest
from flask import Flask

from app import clock
from app.extensions import db
from app.ledger import posting, rollups
from app.ledger.measures import DAY_MS, HOUR_MS
from app.metering.periods import window_of
from app.metering.usage import UsageEvent
from app.reports import planner, requests
from app.reports import usage as usage_reports
from app.reports.usage import Filters, ReportError
from tests.conftest import SetClock
from tests.ledger.books import ADA, ADMIN, BOB, NOON, Somebody, event, some_events


def spent(events: list[UsageEvent]) -> int:
    return sum(told.cost_nano for told in events)


TIMEZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Asia/Kathmandu"]
PERIODS: list[tuple[usage_reports.Period, int]] = [("day", 35), ("week", 6), ("month", 3)]


@pytest.mark.parametrize("derived", [True, False, None], ids=["derived", "underived", "half derived"])
def test_usage_by_period_equals_the_entries(ledger: Flask, subtests: pytest.Subtests, derived: bool | None) -> None:
    events = some_events(250, seed=4)
    if derived is None:
        posting.post(events[:150])
        rollups.derive()
        posting.post(events[150:])
    else:
        posting.post(events)
        if derived:
            rollups.derive()
    for timezone, (period, count) in product(TIMEZONES, PERIODS):
        with subtests.test(timezone=timezone, period=period):
            rows = usage_reports.usage(ADMIN, period, periods=count, timezone=timezone, at_ms=NOON, detailed=True)
            assert len(rows) == count
            _equal_the_entries(rows, events)


def _equal_the_entries(rows: list[usage_reports.PeriodUsage], events: list[UsageEvent]) -> None:
    assert rows[-1].start_ms <= NOON < rows[-1].end_ms
    for row, following in pairwise(rows):
        assert row.end_ms == following.start_ms
    for row in rows:
        inside = [told for told in events if row.start_ms <= told.at_ms < row.end_ms]
        assert row.requests == len(inside)
        assert row.cost_nano == spent(inside)
        assert row.total_tokens == sum(told.prompt_tokens + told.completion_tokens for told in inside)
        assert set(row.models) == {told.model for told in inside}
        assert {name: sums.requests for name, sums in row.api_types.items()} == {
            name: sum(told.api_type == name for told in inside) for name in {told.api_type for told in inside}
        }


@pytest.mark.parametrize("timezone", ["UTC", "America/New_York", "Europe/Berlin"])
def test_usage_up_to_a_turn_of_the_calendar_equals_the_entries(
    ledger: Flask, turn: datetime, set_clock: SetClock, timezone: str
) -> None:
    before = some_events(120, seed=6, until_ms=clock.now_ms())
    posting.post(before)
    rollups.derive()
    for events in (before, before + some_events(30, seed=7, span_ms=8_000, until_ms=clock.now_ms() + 19_000)):
        posting.post(events[len(before) :])
        for period, count in (("day", 35), ("week", 6), ("month", 3)):
            rows = usage_reports.usage(ADMIN, period, periods=count, timezone=timezone)
            begun = [datetime.fromtimestamp(row.start_ms / 1000, ZoneInfo(timezone)) for row in rows]
            assert [(start.hour, start.minute) for start in begun] == [(0, 0)] * count
            assert [row.start_ms <= clock.now_ms() < row.end_ms for row in rows] == [False] * (count - 1) + [True]
            held = [sum(row.start_ms <= told.at_ms < row.end_ms for told in events) for row in rows]
            assert [row.requests for row in rows] == held
        db.session.rollback()  # the next look sees what was posted since
        set_clock.move(20)  # over the turn


@pytest.mark.slow
def test_any_span_and_any_filter_equal_the_entries(ledger: Flask) -> None:
    events = some_events(400, seed=8)
    posting.post(events[:300])
    rollups.derive()
    posting.post(events[300:])
    chance = random.Random(3)
    for _ in range(40):
        start = NOON - chance.randrange(42 * DAY_MS)
        filters = Filters(
            from_ms=chance.choice([None, start]),
            to_ms=chance.choice([None, start + chance.randrange(20 * DAY_MS)]),
            person_id=chance.choice([None, "ada"]),
            key_id=chance.choice([None, "key-2"]),
            model=chance.choice([None, "large/model"]),
            api_type=chance.choice([None, "chat"]),
            status=chance.choice([None, None, 502, "cancelled"]),
        )
        reader = chance.choice([ADMIN, ADA])
        inside = [
            told
            for told in events
            if (filters.from_ms is None or told.at_ms >= filters.from_ms)
            and (filters.to_ms is None or told.at_ms < filters.to_ms)
            and (reader is ADMIN or told.person_id == "ada")
            and filters.person_id in (None, told.person_id)
            and filters.key_id in (None, told.key_id)
            and filters.model in (None, told.model)
            and filters.api_type in (None, told.api_type)
            and filters.status in (None, told.status, told.outcome)
        ]
        sums = usage_reports.totals(reader, filters=filters)
        assert (sums.requests, sums.cost_nano) == (len(inside), spent(inside))
        shares = usage_reports.by_model(reader, filters=filters)
        assert {share.name: share.cost_nano for share in shares} == {
            name: spent([told for told in inside if told.model == name]) for name in {told.model for told in inside}
        }
        page = requests.search(reader, filters=filters, limit=1000)
        assert {entry.request_id for entry in page.entries} == {told.request_id for told in inside}


def test_stats_cover_the_span_asked_for_and_no_more(ledger: Flask, subtests: pytest.Subtests) -> None:
    events = some_events(200, seed=2, span_ms=20 * DAY_MS)
    posting.post(events)
    start, end = NOON - 10 * DAY_MS + 12_345, NOON - 2 * DAY_MS - 54_321
    inside = [told for told in events if start <= told.at_ms < end]
    for step in usage_reports.STEPS:
        with subtests.test(step=step):
            rows = usage_reports.stats(ADMIN, step, filters=Filters(from_ms=start, to_ms=end))
            assert sum(row.requests for row in rows) == len(inside)
            assert sum(row.errors for row in rows) == sum(told.outcome == "error" for told in inside)
            assert rows[0].start_ms <= start < rows[0].end_ms
            assert rows[-1].start_ms < end <= rows[-1].end_ms


def test_stats_without_a_span_show_the_latest(ledger: Flask) -> None:
    posting.post([event(), event(at_ms=NOON - 40 * DAY_MS)])
    assert [len(usage_reports.stats(ADMIN, step, at_ms=NOON)) for step in usage_reports.STEPS] == [24, 30, 12, 12]
    assert sum(row.requests for row in usage_reports.stats(ADMIN, "hour", at_ms=NOON)) == 1


def test_too_many_groups_are_refused(ledger: Flask) -> None:
    with pytest.raises(ReportError, match="1000"):
        usage_reports.stats(ADMIN, "hour", filters=Filters(from_ms=NOON - 400 * DAY_MS))
    with pytest.raises(ReportError):
        usage_reports.usage(ADMIN, "day", periods=1001)
    assert len(usage_reports.usage(ADMIN, "day", periods=1000, at_ms=NOON)) == 1000


def test_a_person_reads_their_own_usage_only(ledger: Flask) -> None:
    mine, other = event(person_id="ada"), event(person_id="bob")
    posting.post([mine, other])
    assert usage_reports.totals(ADA).requests == 1
    assert usage_reports.totals(ADA, filters=Filters(person_id="bob")).requests == 0
    assert [share.name for share in usage_reports.by(ADA, "person_id")] == ["ada"]
    assert [entry.request_id for entry in requests.search(ADA).entries] == [mine.request_id]
    assert requests.entries_of(ADA, other.request_id) == []
    assert [(share.name, share.requests) for share in usage_reports.by(ADA, "key_id")] == [("key-1", 1)]
    assert usage_reports.totals(Somebody("")).requests == 0
    with pytest.raises(PermissionError):
        usage_reports.summary(ADA)
    assert usage_reports.totals(ADMIN).requests == 2
    assert len(requests.entries_of(ADMIN, other.request_id)) == 1


def test_shares_come_largest_first(ledger: Flask) -> None:
    posting.post([event(person_id="ada", cost_nano=5)] + [event(person_id="bob", cost_nano=1) for _ in range(3)])
    assert [share.name for share in usage_reports.by(ADMIN, "person_id")] == ["ada", "bob"]
    assert [share.name for share in usage_reports.by(ADMIN, "person_id", order="requests")] == ["bob", "ada"]
    assert [share.name for share in usage_reports.by(ADMIN, "person_id", order="tokens", limit=1)] == ["bob"]


def test_a_new_event_shows_at_once(ledger: Flask) -> None:
    posting.post([event()])
    rollups.derive()
    posting.post([event()])
    month = window_of("month|UTC", NOON)
    (row,) = usage_reports.usage(ADA, "month", periods=1, at_ms=NOON)
    assert (row.start_ms, row.end_ms, row.requests) == (month.start_ms, month.end_ms, 2)
    assert row.mean_duration_ms == 40
    assert row.mean_ttft_ms == 7


def corrections(told: UsageEvent) -> list[UsageEvent]:
    """What may be booked later about a request, and the repair of a counter an hour later."""
    late = msgspec.structs.replace(told, kind="late", cost_nano=30, overdraft_nano=30, prompt_tokens=0)
    credit = msgspec.structs.replace(
        told, kind="credit", cost_nano=-50, prompt_tokens=0, completion_tokens=0, outcome="error", status=502
    )
    repair = UsageEvent(
        request_id="repair-1", attempt=0, kind="repair", at_ms=told.at_ms + HOUR_MS, person_id="", model="",
        endpoint="", api_type="", outcome="ok", status=200, moved_nano=-7,
    )  # fmt: skip
    return [late, credit, repair]


@pytest.mark.parametrize("derived", [True, False])
def test_a_correction_is_money_and_no_request(ledger: Flask, derived: bool) -> None:
    told = event(cost_nano=100, completion_tokens=5, duration_ms=40, ttft_ms=7)
    posting.post([told, *corrections(told)])
    if derived:
        rollups.derive()
    for filters in (usage_reports.NONE, Filters(from_ms=NOON - 1, to_ms=NOON + 2 * HOUR_MS)):
        sums = usage_reports.totals(ADMIN, filters=filters)
        assert (sums.requests, sums.errors, sums.duration_ms, sums.ttft_count) == (1, 0, 40, 1)
        assert (sums.cost_nano, sums.completion_tokens) == (80, 10)
        assert (sums.mean_duration_ms, sums.mean_ttft_ms) == (40, 7)
        assert [share.name for share in usage_reports.by_model(ADMIN, filters=filters)] == ["echo"]
        assert [share.name for share in usage_reports.by(ADMIN, "person_id", filters=filters)] == ["ada"]
        page = requests.search(ADMIN, filters=filters)
        assert [entry.kind for entry in page.entries] == ["usage"]
        assert page.total == 1
    (row,) = usage_reports.usage(ADMIN, "day", periods=1, at_ms=NOON, detailed=True)
    assert set(row.models) == {"echo"}
    first, *others = [entry.kind for entry in requests.entries_of(ADMIN, told.request_id)]
    assert (first, set(others)) == ("usage", {"late", "credit"})
    assert requests.entries_of(ADMIN, "repair-1") == []
    assert rollups.check() == []


def test_shares_over_time_equal_the_entries(ledger: Flask, subtests: pytest.Subtests) -> None:
    first = NOON - 9 * DAY_MS - 100_000  # within an hour, whose part is read from the entries, as the running one's is
    events = some_events(200, seed=5, span_ms=20 * DAY_MS)
    events += [event(at_ms=at_ms, key_id=None, team_id=None, cost_nano=1000 + at_ms - first) for at_ms in (first, NOON)]
    posting.post(events)
    rollups.derive()
    for step, (dimension, name) in product(usage_reports.STEPS, [("key_id", "key-1"), ("team_id", "team-1")]):
        with subtests.test(step=step, dimension=dimension):
            _shares_equal_the_entries(events, first, step, dimension, name)


def _shares_equal_the_entries(
    events: list[UsageEvent], first: int, step: usage_reports.Step, dimension: str, name: str
) -> None:
    filters = Filters(from_ms=first, to_ms=NOON + 1)
    rows = usage_reports.stats(ADMIN, step, filters=filters)
    shares = usage_reports.shares_over_time(ADMIN, step, dimension, [name, ""], filters=filters)
    assert set(shares) == {name, ""}
    ranked = usage_reports.by(ADMIN, dimension, filters=filters)
    for told in ranked:
        assert told.cost_nano == spent(
            [e for e in events if first <= e.at_ms and (getattr(e, dimension) or "") == told.name]
        )
    assert sorted(told.name for told in ranked) == sorted({getattr(e, dimension) or "" for e in events})
    for row in rows:
        for name, parts in shares.items():
            inside = [
                told
                for told in events
                if max(row.start_ms, first) <= told.at_ms < row.end_ms and (getattr(told, dimension) or "") == name
            ]
            assert parts.get(row.start_ms, usage_reports.Sums()).cost_nano == spent(inside)


def test_the_week_is_told_by_its_hours(ledger: Flask, subtests: pytest.Subtests) -> None:
    events = some_events(200, seed=6, span_ms=20 * DAY_MS)
    posting.post(events)
    filters = Filters(from_ms=NOON - 14 * DAY_MS, model="echo")
    for timezone in ("UTC", "America/New_York"):
        with subtests.test(timezone=timezone):
            week = usage_reports.by_hour_of_week(ADA, filters=filters, timezone=timezone, at_ms=NOON)
            counted = [[0] * 24 for _ in range(7)]
            for told in events:
                if told.at_ms >= NOON - 14 * DAY_MS and told.person_id == "ada" and told.model == "echo":
                    moment = datetime.fromtimestamp(told.at_ms / 1000, ZoneInfo(timezone))
                    counted[moment.weekday()][moment.hour] += 1
            assert [[sums.requests for sums in day] for day in week] == counted


def test_active_people_are_counted(ledger: Flask) -> None:
    posting.post([event(), event(person_id="bob"), event(at_ms=NOON - 9 * DAY_MS, person_id="eve")])
    posting.post([event(kind="credit", person_id="zoe", cost_nano=-1)])
    ever, of_a_day = usage_reports.rankings(
        ADMIN,
        [usage_reports.Question("person_id"), usage_reports.Question("person_id", Filters(from_ms=NOON - DAY_MS))],
    )
    assert (ever.total, ever.active) == (4, 3)
    assert of_a_day.active == 2


@pytest.mark.slow
def test_questions_asked_together_are_answered_as_alone(ledger: Flask) -> None:
    events = some_events(200, seed=7, span_ms=20 * DAY_MS)
    posting.post(events)
    rollups.derive()
    wide, narrow = Filters(from_ms=NOON - 12 * DAY_MS), Filters(model="echo", to_ms=NOON - DAY_MS)
    questions = [
        usage_reports.Question("person_id", wide),
        usage_reports.Question("model", wide, "tokens", 1),
        usage_reports.Question("model", wide),
        usage_reports.Question("key_id", narrow, "errors"),
        usage_reports.Question("team_id", narrow),
        usage_reports.Question("provider_id", Filters(person_id="nobody")),
    ]
    for reader in (ADMIN, ADA, BOB):
        found = usage_reports.rankings(reader, questions)
        for (dimension, filters, order, limit, _), ranking in zip(questions, found, strict=True):
            assert ranking.shares == usage_reports.by(reader, dimension, filters=filters, order=order, limit=limit)
            assert ranking.total >= len(ranking.shares)
    assert usage_reports.rankings(ADMIN, []) == []


def test_a_course_tells_what_stats_tell_and_the_span_before(ledger: Flask, subtests: pytest.Subtests) -> None:
    events = some_events(300, seed=8, span_ms=20 * DAY_MS)
    posting.post(events)
    rollups.derive()
    filters = Filters(from_ms=NOON - 9 * DAY_MS, to_ms=NOON + 1)
    before = Filters(from_ms=NOON - 18 * DAY_MS, to_ms=NOON - 9 * DAY_MS + 1)
    for step, reader in product(usage_reports.STEPS, (ADMIN, ADA)):
        with subtests.test(step=step, reader=reader.id):
            course = usage_reports.course(reader, step, filters=filters, before=before)
            assert course.rows == usage_reports.stats(reader, step, filters=filters)
            assert course.sums == usage_reports.totals(reader, filters=filters)
            assert course.before == usage_reports.totals(reader, filters=before)
            inside = [told for told in events if NOON - 9 * DAY_MS <= told.at_ms <= NOON and told.kind == "usage"]
            mine = [told for told in inside if told.stream and (reader is ADMIN or told.person_id == "ada")]
            assert course.streams.requests == len(mine)


def test_what_is_known_of_the_longer_sums_is_asked_once_in_a_transaction(
    ledger: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(planner, "derived_before", lambda connection: asked.append(connection))
    usage_reports.stats(ADMIN, "day")
    usage_reports.rankings(ADMIN, [usage_reports.Question("model")])
    assert len(asked) == 1
    db.session.rollback()
    usage_reports.stats(ADMIN, "day")
    assert len(asked) == 2


def test_what_was_posted_late_is_told_in_the_next_transaction(ledger: Flask) -> None:
    posting.post([event(at_ms=NOON - 3 * DAY_MS)])
    rollups.derive()
    span = Filters(from_ms=NOON - 9 * DAY_MS, to_ms=NOON)
    assert usage_reports.totals(ADMIN, filters=span).requests == 1
    db.session.rollback()
    posting.post([event(at_ms=NOON - 5 * DAY_MS), event(at_ms=NOON - 3 * DAY_MS)])
    assert usage_reports.totals(ADMIN, filters=span).requests == 3


def test_the_series_of_a_ranking_are_its_shares_over_time(ledger: Flask, subtests: pytest.Subtests) -> None:
    events = some_events(300, seed=14, span_ms=20 * DAY_MS)
    posting.post(events)
    rollups.derive()
    scopes = [Filters(person_id="ada"), Filters(team_id="team-1"), Filters(key_id="key-1")]
    for step, scope in product(usage_reports.STEPS, scopes):
        with subtests.test(step=step, scope=scope):
            _the_series_are_shares_over_time(step, scope)


def _the_series_are_shares_over_time(step: usage_reports.Step, scope: Filters) -> None:
    filters = msgspec.structs.replace(scope, from_ms=NOON - 9 * DAY_MS, to_ms=NOON + 1)
    windows = usage_reports.windows_of(step, filters)
    charted = usage_reports.Question("model", filters, "tokens", 2, windows)
    plain = usage_reports.Question("model", filters, "tokens", 2)
    found, others = usage_reports.rankings(ADMIN, [charted, usage_reports.Question("key_id", filters)])
    assert (found.shares, found.total, found.active) == usage_reports.rankings(ADMIN, [plain])[0][:3]
    names = [share.name for share in found.shares]
    assert names
    assert found.series == usage_reports.shares_over_time(ADMIN, step, "model", names, filters=filters)
    assert others.series is None


def test_series_that_other_rows_tell_are_left_to_them(ledger: Flask) -> None:
    """Of everybody's models there are sums of their own, fewer in weeks than in days."""
    posting.post(some_events(50, seed=15))
    rollups.derive()
    filters = Filters(from_ms=NOON - 9 * DAY_MS, to_ms=NOON + 1)
    question = usage_reports.Question("model", filters, windows=usage_reports.windows_of("day", filters))
    assert usage_reports.rankings(ADMIN, [question])[0].series is None


def test_windows_narrow_no_ranking(ledger: Flask) -> None:
    """Series are told of the first windows that hold the whole span; any others are left to a question of their own."""
    posting.post(some_events(200, seed=16, span_ms=20 * DAY_MS))
    rollups.derive()
    filters = Filters(person_id="ada", from_ms=NOON - 15 * DAY_MS, to_ms=NOON + 1)
    days, short = (
        usage_reports.windows_of("day", msgspec.structs.replace(filters, from_ms=first))
        for first in (NOON - 15 * DAY_MS, NOON - DAY_MS)
    )
    questions = [usage_reports.Question("model", filters, windows=windows) for windows in (short, days, ())]
    narrow, whole, plain = usage_reports.rankings(ADMIN, questions)
    assert narrow == plain == whole._replace(series=None)
    assert whole.series is not None
    assert usage_reports.rankings(ADMIN, questions[:1]) == [plain]


LABELLED = [
    event(session_id="s1", agent="codex", tags=("a", "b"), turn_id="t1", cost_nano=1, team_id="team-1"),
    event(session_id="s1", agent="codex", tags=("b",), turn_id="t1", cost_nano=10, outcome="error"),
    event(session_id="s2", agent="claude-cli", cost_nano=100, at_ms=NOON - 3 * DAY_MS),
    event(cost_nano=1000, person_id="bob"),
]


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        ("session_id", {"": 1000, "s2": 100, "s1": 11}),
        ("agent", {"": 1000, "claude-cli": 100, "codex": 11}),
        ("tag", {"": 1100, "b": 11, "a": 1}),
    ],
)
def test_what_clients_say_divides_usage(
    ledger: Flask, dimension: usage_reports.Dimension, expected: dict[str, int]
) -> None:
    posting.post(LABELLED)
    rollups.derive()
    shares = usage_reports.by(ADMIN, dimension)
    assert {share.name: share.cost_nano for share in shares} == expected
    assert [share.cost_nano for share in shares] == sorted(expected.values(), reverse=True)
    within = Filters(from_ms=NOON - 7 * DAY_MS, to_ms=NOON + 1)
    series = usage_reports.shares_over_time(ADMIN, "day", dimension, list(expected), filters=within)
    assert {name: sum(sums.cost_nano for sums in row.values()) for name, row in series.items()} == expected
    assert "" not in {share.name for share in usage_reports.by(BOB, dimension)} - {""}
    together = [usage_reports.Question(name) for name in ("model", dimension, "key_id")]
    models, _, keys = usage_reports.rankings(ADMIN, together)
    assert sum(share.cost_nano for share in models.shares) == sum(share.cost_nano for share in keys.shares) == 1111


@pytest.mark.parametrize(
    ("filters", "cost"),
    [
        (Filters(session_id="s1"), 11), (Filters(agent="claude-cli"), 100), (Filters(tag="b"), 11), (Filters(tag="a"), 1),
        (Filters(turn_id="t1"), 11), (Filters(tag="b", status="error"), 10), (Filters(tag="c"), 0),
    ],
)  # fmt: skip
def test_what_clients_say_narrows_every_report(ledger: Flask, filters: Filters, cost: int) -> None:
    posting.post(LABELLED)
    rollups.derive()
    assert usage_reports.totals(ADMIN, filters=filters).cost_nano == cost
    assert sum(entry.cost_nano for entry in requests.search(ADMIN, filters=filters).entries) == cost
    assert sum(row.cost_nano for row in usage_reports.stats(ADMIN, "day", filters=filters, at_ms=NOON)) == cost
    week = usage_reports.by_hour_of_week(ADMIN, filters=filters, at_ms=NOON)
    assert sum(hour.cost_nano for day in week for hour in day) == cost
    assert usage_reports.totals(BOB, filters=filters).cost_nano == 0
