"""Steps of Redis's time and clocks that differ are noticed, logged once and told of for a while."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from structlog.testing import capture_logs

from app import clock, store, timekeeping
from tests.house import wire  # noqa: F401

HOUR_MS = 3_600_000

Shift = Callable[[int], None]


@pytest.fixture
def shift(monkeypatch: pytest.MonkeyPatch) -> Shift:
    """`shift(ms)` sets how far Redis's time is from the real one; ours goes with it unless told otherwise."""
    as_told, now_ns = timekeeping._ms, clock.now_ns

    def by(ms: int, ours_too: bool = True) -> None:
        monkeypatch.setattr(timekeeping, "_ms", lambda told: as_told(told) + ms)
        monkeypatch.setattr(clock, "now_ns", lambda: now_ns() + ms * 1_000_000 * ours_too)

    return by


def test_clocks_that_agree_are_right(wire: redis.Redis) -> None:
    assert timekeeping.look(wire).are_right
    assert abs(timekeeping.look(wire).difference_ms) < 1000


@pytest.mark.parametrize("ms", [-HOUR_MS, -7_000, 7_000, HOUR_MS])
def test_a_difference_of_the_clocks_is_told_and_logged_once(wire: redis.Redis, shift: Shift, ms: int) -> None:
    watch = timekeeping.Watch(wire)
    shift(ms, False)  # type: ignore[call-arg]
    told = timekeeping.look(wire)
    assert not told.are_right
    assert abs(told.difference_ms + ms) < 1000
    with capture_logs() as logs:
        watch.look()
        watch.look()
    assert [line["event"] for line in logs] == ["the clocks of this machine and of Redis differ"]


def test_a_step_ahead_is_noticed_by_what_really_passed(wire: redis.Redis, shift: Shift) -> None:
    watch = timekeeping.Watch(wire)
    with capture_logs() as logs:
        watch.look()
        shift(HOUR_MS)
        watch.look()
        watch.look()
    assert [(line["event"], line["log_level"]) for line in logs] == [("the time of Redis was changed", "error")]
    step = timekeeping.look(wire).step
    assert step is not None
    assert abs(step.ms - HOUR_MS) < 1000


def test_a_drainer_that_slept_sees_no_step(wire: redis.Redis, shift: Shift, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = timekeeping.Watch(wire)
    watch.look()
    monotonic = timekeeping.time.monotonic
    monkeypatch.setattr(timekeeping.time, "monotonic", lambda: monotonic() + 3600)
    shift(HOUR_MS)
    watch.look()
    assert timekeeping.look(wire).are_right


def test_a_step_back_that_the_meter_noted_is_logged_and_forgotten_after_a_while(
    wire: redis.Redis, shift: Shift
) -> None:
    watch = timekeeping.Watch(wire)
    wire.hset(store.METER, mapping={"step_ms": -HOUR_MS, "step_at": clock.now_ms()})
    with capture_logs() as logs:
        watch.look()
        watch.look()
    assert [line["step_ms"] for line in logs] == [-HOUR_MS]
    shift(timekeeping.ALARM_MS - 5_000)
    assert timekeeping.look(wire).step == (-HOUR_MS, int(wire.hget(store.METER, "step_at") or 0))
    shift(timekeeping.ALARM_MS + 5_000)
    assert timekeeping.look(wire).are_right
