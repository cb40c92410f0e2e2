"""Whether clocks are right: the application's compared with Redis's, and steps of Redis's own clock.

Redis's clock decides about money. The meter's scripts notice a step back (`app/metering/clock.lua`); the drainer notices a
step ahead: its `Watch` compares the time that passed on Redis's clock with that of a timer.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import structlog
from redis import Redis

from app import clock, store

TOLERATED_MS = 5_000
ALARM_MS = 600_000  # how long a step is reported

log = structlog.get_logger(__name__)


class Step(NamedTuple):
    """How far Redis's clock went ahead (negative: back), in ms, and its time then, Unix ms."""

    ms: int
    at_ms: int


class Times(NamedTuple):
    """How far the application's clock is ahead of Redis's, in ms, and the last step if it is recent."""

    difference_ms: int
    step: Step | None

    @property
    def are_right(self) -> bool:
        return self.step is None and abs(self.difference_ms) <= TOLERATED_MS


def look(redis: Redis) -> Times:
    """Compare both clocks now. Raises `RedisError`."""
    sent_ms = clock.now_ms()
    with redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hmget(store.METER, "step_ms", "step_at")
        server, step = pipe.execute()
    answered_ms = clock.now_ms()
    server_ms = _ms(server)
    # Redis read its clock at some moment between sending and answering, so only a time outside is a difference.
    difference_ms = min(0, answered_ms - server_ms) or max(0, sent_ms - server_ms)
    noted = Step(int(step[0]), int(step[1])) if step[0] is not None else None
    return Times(difference_ms, noted if noted and abs(server_ms - noted.at_ms) < ALARM_MS else None)


class Watch:
    """The drainer's check of the clocks, once a second."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._seen: tuple[int, float] | None = None  # Redis's time in ms, and our timer when it arrived
        self._logged: Step | None = None
        self._differed = False

    def look(self) -> None:
        """Record a step ahead, and log each fault of the clocks once. Raises `RedisError`."""
        began = time.monotonic()
        server_ms = _ms(self._redis.time())
        if self._seen is not None:
            before_ms, before = self._seen
            ahead_ms = server_ms - before_ms - round((time.monotonic() - before) * 1000)
            if ahead_ms > TOLERATED_MS:
                self._redis.hset(store.METER, mapping={"step_ms": ahead_ms, "step_at": server_ms})
        self._seen = server_ms, began
        times = look(self._redis)
        if times.step is not None and times.step != self._logged:
            log.error("the time of Redis was changed", step_ms=times.step.ms)
        self._logged = times.step
        differs = abs(times.difference_ms) > TOLERATED_MS
        if differs and not self._differed:
            log.error("the clocks of this machine and of Redis differ", ahead_ms=times.difference_ms)
        self._differed = differs


def _ms(server: Any) -> int:
    seconds, micros = server
    return int(seconds) * 1000 + int(micros) // 1000
