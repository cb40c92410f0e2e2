"""Whether time goes as it should: the application's clock beside Redis's, and the steps that Redis's own has made.

Redis's decides about money. A step back is noticed and noted by the meter's scripts (`app/metering/clock.lua`), one ahead
by the drainer, whose `Watch` compares what passed on Redis's clock with what really passed.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import structlog
from redis import Redis

from app import clock, store

TOLERATED_MS = 5_000
ALARM_MS = 600_000  # how long a step is told of

log = structlog.get_logger(__name__)


class Step(NamedTuple):
    """By how much Redis's time went ahead, or back when below zero, and what it was then, Unix ms."""

    ms: int
    at_ms: int


class Times(NamedTuple):
    """By how much the application's clock is ahead of Redis's, ms, and the last step if it was lately."""

    difference_ms: int
    step: Step | None

    @property
    def are_right(self) -> bool:
        return self.step is None and abs(self.difference_ms) <= TOLERATED_MS


def look(redis: Redis) -> Times:
    """The times as they are now."""
    asked_ms = clock.now_ms()
    with redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hmget(store.METER, "step_ms", "step_at")
        server, step = pipe.execute()
    answered_ms = clock.now_ms()
    server_ms = _ms(server)
    # The answer may have been under way all the time, so only what lies outside is a difference.
    difference_ms = min(0, answered_ms - server_ms) or max(0, asked_ms - server_ms)
    noted = Step(int(step[0]), int(step[1])) if step[0] is not None else None
    return Times(difference_ms, noted if noted and abs(server_ms - noted.at_ms) < ALARM_MS else None)


class Watch:
    """What the drainer looks with, each second."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._seen: tuple[int, float] | None = None  # Redis's time, and our timer once it was told
        self._told: Step | None = None
        self._differed = False

    def look(self) -> None:
        """Note a step ahead, and log what is wrong with the times once."""
        began = time.monotonic()
        server_ms = _ms(self._redis.time())
        if self._seen is not None:
            before_ms, before = self._seen
            ahead_ms = server_ms - before_ms - round((time.monotonic() - before) * 1000)
            if ahead_ms > TOLERATED_MS:
                self._redis.hset(store.METER, mapping={"step_ms": ahead_ms, "step_at": server_ms})
        self._seen = server_ms, began
        times = look(self._redis)
        if times.step is not None and times.step != self._told:
            log.error("the time of Redis was changed", step_ms=times.step.ms)
        self._told = times.step
        differs = abs(times.difference_ms) > TOLERATED_MS
        if differs and not self._differed:
            log.error("the clocks of this machine and of Redis differ", ahead_ms=times.difference_ms)
        self._differed = differs


def _ms(server: Any) -> int:
    seconds, micros = server
    return int(seconds) * 1000 + int(micros) // 1000
