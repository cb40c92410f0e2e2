"""While Redis is away each process counts by itself: never more than a key's limit, and no longer a wait than told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway import local_rates
from app.gateway.local_rates import KEPT, LocalRates


class Watch:
    """A timer that stands still but for what a test adds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(local_rates.time, "monotonic", lambda: self.now)


@given(st.integers(0, 30), st.lists(st.floats(0, 40), min_size=1, max_size=60))
def test_no_more_go_on_than_the_limit_and_what_time_gives_back(limit: int, waits: list[float]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        watch, rates = Watch(monkeypatch), LocalRates()
        rates.learn("k", limit)
        went = 0
        for wait in waits:
            watch.now += wait
            went += rates.wait_s("k") == 0
        assert went <= limit + sum(waits) * limit / 60 + 1e-6


@given(st.integers(1, 30), st.lists(st.floats(0, 5), max_size=60))
def test_whoever_waits_as_long_as_told_goes_on(limit: int, waits: list[float]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        watch, rates = Watch(monkeypatch), LocalRates()
        rates.learn("k", limit)
        for wait in waits:
            watch.now += wait
            told = rates.wait_s("k")
            if told:
                watch.now += told + 1e-6
                assert rates.wait_s("k") == 0


def test_a_key_without_a_limit_goes_on_and_a_limit_of_none_never_does() -> None:
    rates = LocalRates()
    rates.learn("free", -1)
    rates.learn("closed", 0)
    assert [rates.wait_s("free") for _ in range(100)] == [0] * 100
    assert rates.wait_s("unknown") == 0
    assert rates.wait_s("closed") > 0
    assert (rates.limit("free"), rates.limit("unknown"), rates.limit("closed")) == (-1, -1, 0)


def test_whoever_was_silent_for_long_has_saved_up_no_more_than_a_minutes_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, rates = Watch(monkeypatch), LocalRates()
    rates.learn("k", 5)
    rates.wait_s("k")
    watch.now += 86_400
    assert [rates.wait_s("k") == 0 for _ in range(6)] == [True] * 5 + [False]


def test_one_key_takes_nothing_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    Watch(monkeypatch)
    rates = LocalRates()
    for key in ("a", "b"):
        rates.learn(key, 1)
    assert (rates.wait_s("a"), rates.wait_s("a"), rates.wait_s("b")) == (0, 60, 0)


def test_it_does_not_grow_without_end() -> None:
    rates = LocalRates()
    for number in range(3 * KEPT):
        rates.learn(str(number), 1)
        rates.wait_s(str(number))
    assert len(rates._limits) <= KEPT and len(rates._buckets) <= KEPT
