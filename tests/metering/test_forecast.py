"""The forecast of a budget's period: it goes on as so far, and says nothing while that would be a guess."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.metering import forecast
from app.metering.periods import ALL_TIME, FOR_EVER_MS, Window, window_of

HOUR = 3_600_000
starts = st.integers(0, 4_000_000_000_000)
lengths = st.integers(HOUR, 32 * 24 * HOUR)
amounts = st.integers(0, 10**18)


@given(start=starts, length=lengths, share=st.fractions(0, 1), spent=amounts, more=amounts)
def test_it_is_never_less_than_what_is_spent_and_grows_with_it(
    start: int, length: int, share: Fraction, spent: int, more: int
) -> None:
    window, moment = Window("month-1", start, start + length), start + int(length * share)
    found = forecast.at_end(spent, window, moment)
    if moment - start < length * forecast.ENOUGH:
        assert found is None
        return
    assert found is not None and found >= spent
    assert found <= spent / forecast.ENOUGH + 1
    larger = forecast.at_end(spent + more, window, moment)
    assert larger is not None and larger >= found + more


@given(start=starts, length=lengths, spent=amounts, after=st.integers(0, HOUR))
def test_at_the_end_of_the_period_it_is_what_was_spent(start: int, length: int, spent: int, after: int) -> None:
    window = Window("month-1", start, start + length)
    assert forecast.at_end(spent, window, window.end_ms + after) == spent


@given(start=starts, length=lengths, early=st.fractions(0, 1), late=st.fractions(0, 1), spent=amounts)
def test_the_same_amount_later_means_a_lower_forecast(
    start: int, length: int, early: Fraction, late: Fraction, spent: int
) -> None:
    window = Window("month-1", start, start + length)
    first, second = sorted((start + int(length * early), start + int(length * late)))
    before, after = forecast.at_end(spent, window, first), forecast.at_end(spent, window, second)
    assert before is None or (after is not None and after <= before)


@given(now_ms=starts, spent=amounts)
def test_a_budget_in_total_has_none(now_ms: int, spent: int) -> None:
    assert forecast.at_end(spent, window_of(ALL_TIME, now_ms), now_ms) is None


@pytest.mark.parametrize("spec", ["day|UTC", "week|Europe/Berlin", "month|America/New_York"])
def test_half_of_a_period_means_double(spec: str) -> None:
    window = window_of(spec, 1_700_000_000_000)
    middle = (window.start_ms + window.end_ms) // 2
    assert forecast.at_end(1_000, window, middle) == 2_000
    assert forecast.at_end(-5, window, middle) == 0, "credits that are more than what was spent cost nothing"
    assert window.end_ms < FOR_EVER_MS
