"""Periods: no instant in two of them or in none, whatever a time zone does to its clocks."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.metering.periods import ALL_TIME, spec, window_of

# Zones with half-hour shifts, midnight shifts, missing and doubled days, and none of it.
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/Havana", "Asia/Beirut", "Africa/Cairo",
    "Asia/Tehran", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kwajalein", "America/Asuncion", "Asia/Kathmandu",
    "Atlantic/Azores", "America/Scoresbysund", "Antarctica/Troll",
]  # fmt: skip
instants = st.integers(min_value=int(datetime(1990, 1, 1, tzinfo=UTC).timestamp() * 1000),
                       max_value=int(datetime(2037, 12, 31, tzinfo=UTC).timestamp() * 1000))  # fmt: skip
periods = st.sampled_from(["day", "week", "month"])


@given(instants, periods, st.sampled_from(ZONES))
def test_every_instant_lies_in_the_window_found_for_it(now_ms, period, zone):
    window = window_of(spec(period, zone), now_ms)
    assert window.start_ms <= now_ms < window.end_ms


@given(instants, periods, st.sampled_from(ZONES))
def test_a_window_is_the_same_from_all_its_instants_and_the_next_begins_where_it_ends(now_ms, period, zone):
    name = spec(period, zone)
    window = window_of(name, now_ms)
    assert window_of(name, window.start_ms) == window
    assert window_of(name, window.end_ms - 1) == window
    following = window_of(name, window.end_ms)
    assert following.start_ms == window.end_ms
    assert following.name != window.name


@given(instants, st.sampled_from(ZONES))
def test_a_day_begins_on_its_own_date_and_the_moment_before_on_another(now_ms, zone):
    window = window_of(spec("day", zone), now_ms)
    first = datetime.fromtimestamp(window.start_ms / 1000, ZoneInfo(zone))
    before = datetime.fromtimestamp(window.start_ms / 1000 - 1, ZoneInfo(zone))
    assert before.date() != first.date()


@pytest.mark.parametrize(
    ("zone", "at", "start"),
    [
        # Midnight did not exist: the day began at one o'clock.
        ("America/Sao_Paulo", "2018-11-04T12:00:00-02:00", "2018-11-04T01:00:00-02:00"),
        ("Asia/Beirut", "2022-03-27T12:00:00+03:00", "2022-03-27T01:00:00+03:00"),
        # Midnight came twice: the first counts.
        ("America/Havana", "2022-11-06T12:00:00-05:00", "2022-11-06T00:00:00-04:00"),
        # The day before did not exist at all.
        ("Pacific/Apia", "2011-12-31T12:00:00+14:00", "2011-12-31T00:00:00+14:00"),
    ],
)
def test_days_with_odd_midnights_begin_where_people_there_would_say(zone, at, start):
    window = window_of(spec("day", zone), int(datetime.fromisoformat(at).timestamp() * 1000))
    assert window.start_ms == datetime.fromisoformat(start).timestamp() * 1000


def test_weeks_begin_on_monday_and_months_on_the_first():
    at = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() * 1000)
    week, month = window_of("week|UTC", at), window_of("month|UTC", at)
    assert datetime.fromtimestamp(week.start_ms / 1000, UTC).isoformat() == "2026-11-16T00:00:00+00:00"
    assert datetime.fromtimestamp(month.end_ms / 1000, UTC).isoformat() == "2026-12-01T00:00:00+00:00"


def test_a_total_budget_has_one_period_for_ever():
    assert window_of(ALL_TIME, 0) == window_of(ALL_TIME, 4_000_000_000_000)
