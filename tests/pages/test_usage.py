"""Usage arranged for a page: spans and what they are compared with, the sum behind a cost, and the lines of a file."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app.domain import keys, teams
from app.domain.prices import Price
from app.extensions import db, transaction
from app.ledger import posting
from app.ledger.entries import UsageEntry
from app.ledger.measures import DAY_MS, HOUR_MS
from app.metering import money
from app.pages import usage as pages
from app.pages.usage import Change
from app.reports.planner import TeamReader
from app.reports.usage import Filters, Sums
from app.workflows import offboarding
from tests.house import People
from tests.ledger.books import ADMIN, NOON, event

DAYS = st.dates(date(2020, 1, 1), date(2026, 11, 5))


@given(st.sampled_from(["1", "7", "30", "90", "nonsense", ""]), st.integers(NOON, NOON + 400 * DAY_MS))
def test_a_usual_span_ends_now_and_is_compared_with_as_much_before_it(choice: str, at_ms: int) -> None:
    span = pages.period_from({"range": choice}, at_ms=at_ms)
    assert span is not None
    length = int(choice or "0" if choice.isdigit() else "30") * DAY_MS or 30 * DAY_MS
    assert span.to_ms == at_ms + 1 and span.until_ms is None, "what comes last counts"
    assert span.from_ms - span.before_ms == span.to_ms - span.before_to_ms == length
    assert length - DAY_MS < span.to_ms - span.from_ms <= length
    assert span.from_ms % (HOUR_MS if choice == "1" else DAY_MS) == 0


@given(DAYS, st.integers(0, 365))
def test_days_that_are_chosen_are_whole_and_the_last_one_is_in(first: date, more: int) -> None:
    last = first + timedelta(days=more)
    span = pages.period_from({"from": first.isoformat(), "to": last.isoformat()}, at_ms=NOON + 400 * DAY_MS)
    assert span is not None
    assert (span.first_day, span.last_day) == (first.isoformat(), last.isoformat())
    assert span.to_ms - span.from_ms == span.from_ms - span.before_ms == (more + 1) * DAY_MS
    assert (span.until_ms, span.before_to_ms) == (span.to_ms, span.from_ms)


@pytest.mark.parametrize(
    "asked",
    [
        {"from": "2026-11-06", "to": "2026-11-05"},
        {"from": "2026-11-06"},  # tomorrow
        {"from": "2025-11-04", "to": "2026-11-05"},  # 367 days
        {"from": "1970-01-01", "to": "1970-01-02"},
        {"to": "9999-12-31"},
        {"to": "0001-01-01"},
        {"range": "custom", "from": "soon"},
    ],
)
def test_days_that_are_none_are_no_span(asked: dict[str, str]) -> None:
    assert pages.period_from(asked, at_ms=NOON) is None


def test_days_up_to_today_end_now() -> None:
    span = pages.period_from({"from": "2026-11-01", "to": "2026-11-30"}, at_ms=NOON)
    assert span is not None
    assert (span.to_ms, span.until_ms) == (NOON + 1, None)
    assert span.before_to_ms == NOON + 1 - 30 * DAY_MS, "as far into the days before"
    week = pages.period_from({"range": "custom"}, at_ms=NOON)
    assert week is not None and week.first_day == "2026-10-30"


@given(st.integers(1, 366))
def test_a_chart_has_steps_for_every_span_and_never_too_many(days: int) -> None:
    span = pages.period_from({"from": (date(2025, 1, 1)).isoformat(),
                             "to": (date(2025, 1, 1) + timedelta(days=days - 1)).isoformat()}, at_ms=NOON)  # fmt: skip
    assert span is not None
    found = pages.steps(span)
    sizes = {"hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS, "month": 28 * DAY_MS}
    assert found and all((span.to_ms - span.from_ms) / sizes[step] <= pages.MOST_BARS for step in found)
    assert pages._usual_step(span) in found


@pytest.mark.parametrize(
    ("now", "before", "less_is_good", "change"),
    [
        (110, 100, None, Change("+10%")),
        (90, 100, True, Change("-10%", True)),
        (110, 100, True, Change("+10%", False)),
        (110, 100, False, Change("+10%", True)),
        (101, 100, True, Change("+1.0%")),  # too slight to be welcome or not
        (100.01, 100, True, Change("same")),
        (2000, 100, False, Change("×20", True)),
        (5, 0, True, None),
        (5, None, True, None),
        (None, 5, True, None),
        (5, -3, True, None),  # after a correction
    ],
)
def test_a_change_is_told_in_words_and_whether_it_is_welcome(
    now: float | None, before: float | None, less_is_good: bool | None, change: Change | None
) -> None:
    assert pages.change(now, before, less_is_good=less_is_good) == change


def test_what_a_client_broke_off_did_not_fail() -> None:
    assert pages.success(Sums(requests=10, errors=1, cancelled=5)) == 0.9
    assert pages.success(Sums()) is None


@pytest.mark.parametrize(
    ("number", "metric", "text"),
    [
        (0, "requests", ""), (999, "requests", "999"), (1_000, "requests", "1.0k"), (9_940, "tokens", "9.9k"),
        (10_000, "tokens", "10k"), (2_500_000, "tokens", "2.5M"), (3 * 10**9, "tokens", "3.0B"), (0, "cost", ""),
        (9_999_999, "cost", "<.01"), (10_000_000, "cost", "0.01"), (10 * money.NANO, "cost", "10"),
    ],
)  # fmt: skip
def test_a_number_fits_into_a_small_cell(number: int, metric: Any, text: str) -> None:
    assert pages._short(number, metric) == text


PRICES = st.none() | st.integers(0, 10**12)
TOKENS = st.integers(0, 10**7)


@given(prompt=TOKENS, cached=TOKENS, completion=TOKENS, input=PRICES, output=PRICES, cached_input=PRICES)
def test_the_lines_of_a_cost_add_up_to_what_the_meter_charges(
    prompt: int, cached: int, completion: int, input: int | None, output: int | None, cached_input: int | None
) -> None:
    cached = min(cached, prompt)
    price = Price(input_per_mtok=input, output_per_mtok=output, cached_input_per_mtok=cached_input, per_request=None)
    whole = (prompt - cached) * (input or 0) + completion * (output or 0)
    whole += cached * ((input if cached_input is None else cached_input) or 0)
    entry = UsageEntry(
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        cost_nano=money.half_up(whole, money.MTOK),
    )
    lines = pages.arithmetic(entry, price)
    assert sum(line.quantity for line in lines) == prompt + completion
    assert sum(Decimal(line.amount) for line in lines) * money.NANO * money.MTOK == whole
    assert not [line for line in lines if "." in line.amount and line.amount.endswith("0")]


def test_a_price_a_request_is_a_line_of_what_cost_something() -> None:
    price = Price(input_per_mtok=0, output_per_mtok=0, cached_input_per_mtok=None, per_request=5)
    entry = UsageEntry(prompt_tokens=1, cached_tokens=0, completion_tokens=0, cost_nano=5)
    assert [(line.what, line.amount) for line in pages.arithmetic(entry, price)] == [
        ("Input", "0"), ("Request", "0.000000005"),
    ]  # fmt: skip
    free = UsageEntry(prompt_tokens=1, cached_tokens=0, completion_tokens=0, cost_nano=0)
    assert [line.what for line in pages.arithmetic(free, price)] == ["Input"]


def test_more_cached_than_there_were_is_never_charged_below_nothing() -> None:
    price = Price(input_per_mtok=10**9, output_per_mtok=0, cached_input_per_mtok=10**8, per_request=None)
    entry = UsageEntry(prompt_tokens=3, cached_tokens=5, completion_tokens=0, cost_nano=1)
    assert [(line.what, line.quantity) for line in pages.arithmetic(entry, price)] == [("Cached input", 3)]


# --- whose usage, and called what ---


def test_an_address_narrows_to_oneself_unless_one_looks_at_more(people: People) -> None:
    args = {"user": "stranger", "provider": "p-1", "model": "small", "key": "", "team": "t-1"}
    own = pages.filters_from(args, people.owner, None, everyone=False)
    assert own == Filters(person_id=people.owner.id, model="small", team_id="t-1")
    everyone = pages.filters_from(args, people.admin, None, everyone=True)
    assert everyone == Filters(person_id=people.stranger.id, provider_id="p-1", model="small", team_id="t-1")
    led = pages.filters_from(args, people.owner, None, everyone=False, people=True)
    assert (led.person_id, led.provider_id) == (people.stranger.id, None)
    assert pages.filters_from({"user": "nobody"}, people.admin, None, everyone=True).person_id == pages.NOBODY
    assert pages.filters_from({}, people.admin, None, everyone=True).person_id is None


def test_a_reader_reads_the_teams_that_they_own(app: Flask, people: People) -> None:
    team = transaction(teams.create, by=people.owner, name="Research", rpm=None)
    transaction(teams.put_member, team, people.stranger, by=people.owner, role="member")
    with app.test_request_context():
        assert pages.reader_of(people.owner) == TeamReader(people.owner.id, False, (team.id,))
        assert pages.reader_of(people.stranger) == TeamReader(people.stranger.id, False, ())
        assert pages.reader_of(people.auditor) == TeamReader(people.auditor.id, True, ())


def test_what_is_gone_is_told_as_removed_and_a_team_by_its_former_name(people: People) -> None:
    team = transaction(teams.create, by=people.owner, name="Research", rpm=None)
    id = team.id
    transaction(teams.remove, team, by=people.owner)
    names = pages.Names()
    assert names.of("team", {id, ""}) == {id: "Research", "": "Personal"}
    assert names.of("key", {"gone", ""}) == {"gone": pages.GONE, "": "Access token"}
    assert names.of("user", {people.owner.id}) == {people.owner.id: "owner"}
    assert names.known("key", {"gone", ""}) == {}
    key, _ = transaction(keys.create, people.stranger, by=people.stranger, name="app")
    key_id, gone = key.id, people.stranger.id
    transaction(offboarding.delete, people.stranger, by=people.admin)
    assert names.known("user", {gone}) == {gone: "stranger"} and names.is_gone("user", gone)
    assert names.known("key", {key_id}) == {key_id: "app"} and not names.is_gone("user", people.owner.id)
    assert names.of("model", {"a model that was never there"}) == {
        "a model that was never there": "a model that was never there"
    }


# --- files ---


def test_a_file_of_a_span_adds_up_to_the_span_and_not_to_its_steps(people: People) -> None:
    """Its first and last step may be cut."""
    for at_ms, cost in ((NOON - DAY_MS - 1, 1), (NOON - DAY_MS, 2), (NOON, 4), (NOON + 1, 8)):
        posting.post([event(at_ms=at_ms, cost_nano=cost)])
    db.session.rollback()
    rows = list(pages.every_row(ADMIN, Filters(from_ms=NOON - DAY_MS, to_ms=NOON + 1), "day", "model"))
    assert [row.share.cost_nano for row in rows] == [2, 4]
    assert [row.period.start for row in rows] == [datetime(2026, 11, 4, tzinfo=UTC), datetime(2026, 11, 5, tzinfo=UTC)]
    told = {name: show(rows[0]) for name, show in pages.export_columns("model").items()}
    assert (told["model"], told["requests"], told["cost"]) == ("echo", 1, "0.000000002")


def test_steps_without_usage_have_no_line_and_each_group_has_one(people: People) -> None:
    posting.post([event(key_id="key-1"), event(key_id=None), event(at_ms=NOON - 3 * DAY_MS, key_id="key-1")])
    db.session.rollback()
    rows = list(pages.every_row(ADMIN, Filters(from_ms=NOON - 9 * DAY_MS, to_ms=NOON + 1), "day", "key"))
    found = [(row.period.start.day, row.name) for row in rows]
    assert found[0] == (2, pages.GONE), "the oldest first"
    assert sorted(found[1:]) == [(5, pages.GONE), (5, "Access token")]
    columns = pages.export_columns("key")
    assert {columns["key_id"](row) for row in rows} == {"key-1", None}
