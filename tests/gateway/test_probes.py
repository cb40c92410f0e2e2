"""What hangs is asked for its list of models before a call tries it."""

from __future__ import annotations

from typing import Any, cast

import gevent
import pytest

from app import clock, store
from app.gateway import probes
from app.gateway.breakers import QUICK_MS, SLOW_MS, Breakers, Trip
from app.providers.base import UpstreamError

WAY = "deployment:d"


class Lists:
    """An adapter that is asked for its models."""

    def __init__(self, said: Any = (), delay_s: float = 0.0) -> None:
        self.said, self.delay_s = said, delay_s

    def list_models(self) -> Any:
        gevent.sleep(self.delay_s)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


class Told(Breakers):
    """Breakers, and what they tell Redis."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        super().__init__(lambda *command: self.sent.append(command))


def hung(**more: Any) -> Told:
    breakers = Told()
    now_ms = clock.now_ms()
    breakers.trips[WAY] = Trip(
        **{
            "since_ms": now_ms - 9,
            "at_ms": now_ms - 9,
            "until_ms": now_ms - 1,
            "reason": "It hung.",
            "times": 1,
            "hangs": True,
        }
        | more
    )
    return breakers


@pytest.mark.parametrize("said", [(), None, UpstreamError("It has no such key.", status=401)])
def test_what_answers_is_for_the_call_to_try_that_waited(said: Any) -> None:
    breakers = hung()
    assert probes.may_be_tried(breakers, WAY, cast("Any", Lists(said)), 1.0)
    assert breakers.trips[WAY].listed and breakers.trips[WAY].hangs
    gevent.sleep(0)
    assert ("DEL", store.probe(WAY)) not in breakers.sent  # which keeps the probe


@pytest.mark.parametrize(
    ("error", "open_ms", "hangs"),
    [
        (UpstreamError("It hung again.", timed_out=True), 2 * SLOW_MS[0], True),
        (UpstreamError("Nobody listens.", unconnected=True), 2 * QUICK_MS[0], False),
    ],
)
def test_what_is_still_dead_is_left_alone_for_longer(error: UpstreamError, open_ms: int, hangs: bool) -> None:
    breakers = hung()
    assert not probes.may_be_tried(breakers, WAY, cast("Any", Lists(error)), 1.0)
    trip = breakers.trips[WAY]
    assert (trip.until_ms - trip.at_ms, trip.times, trip.hangs) == (open_ms, 2, hangs)
    gevent.sleep(0)
    assert ("DEL", store.probe(WAY)) in breakers.sent


def test_an_answer_that_comes_later_leaves_the_probe_to_another_call() -> None:
    breakers = hung()
    assert not probes.may_be_tried(breakers, WAY, cast("Any", Lists(delay_s=0.02)), 0)
    assert not breakers.trips[WAY].listed and not breakers.sent
    gevent.sleep(0.05)
    assert breakers.trips[WAY].listed and ("DEL", store.probe(WAY)) in breakers.sent
    assert probes.may_be_tried(breakers, WAY, cast("Any", None), 0)


def test_what_does_not_hang_or_closes_meanwhile_is_tried() -> None:
    assert probes.may_be_tried(hung(hangs=False), WAY, cast("Any", None), 0)
    breakers = hung()
    closing = Lists()
    closing.list_models = breakers.trips.clear  # type: ignore[method-assign]
    assert probes.may_be_tried(breakers, WAY, cast("Any", closing), 1.0) and not breakers.trips
