"""The clock: instants and the milliseconds that the books count in are the same, to and fro."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import clock

END_MS = 253_402_300_799_999  # of the year 9999


@given(st.integers(0, END_MS))
def test_milliseconds_that_become_an_instant_become_the_same_milliseconds(at_ms: int) -> None:
    assert clock.to_ms(clock.from_ms(at_ms)) == at_ms


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31), timezones=st.just(UTC)))
def test_an_instant_is_cut_to_its_millisecond_and_never_rounded_up(moment: datetime) -> None:
    rest = moment - clock.from_ms(clock.to_ms(moment))
    assert timedelta(0) <= rest < timedelta(milliseconds=1)


def test_an_instant_of_another_time_zone_is_the_same_instant() -> None:
    there = timezone(timedelta(hours=2))
    assert clock.to_ms(datetime(1970, 1, 1, 2, 0, 1, tzinfo=there)) == 1000


def test_an_instant_without_a_time_zone_is_not_guessed() -> None:
    with pytest.raises(TypeError):
        clock.to_ms(datetime(2026, 1, 1))
