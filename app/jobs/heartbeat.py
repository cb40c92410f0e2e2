"""The drainer's heartbeat, and what the status page shows of it.

The promise: a drainer that died or whose loop hangs is reported as missing; its backlog is shown as long as Redis answers.
"""

from __future__ import annotations

import os
import time

from redis import Redis

from app import clock, store
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.janitor import Janitor
from app.jobs.reaper import Reaper
from app.jobs.stream import Stream
from app.jobs.trouble import Trouble
from app.runtime import heartbeats

STANDS_STILL_S = 120.0  # a turn of the loop can wait for a locked database and for a recount, but not longer


class Heartbeat:
    """Reports the parts' figures. It needs only Redis and runs in the second thread, so it notices a loop that hangs."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        stream: Stream,
        bookkeeper: Bookkeeper,
        janitor: Janitor,
        reaper: Reaper,
        trouble: Trouble,
    ) -> None:
        self._redis = redis
        self._name = name
        self._stream = stream
        self._bookkeeper = bookkeeper
        self._janitor = janitor
        self._reaper = reaper
        self._trouble = trouble
        self._turned = time.monotonic()

    def turn(self) -> None:
        """Record that the loop has completed a turn."""
        self._turned = time.monotonic()

    def report(self) -> None:
        """Send a heartbeat, unless the loop hangs, and write the backlog for the status page."""
        if time.monotonic() - self._turned < STANDS_STILL_S:
            heartbeats.beat(self._redis, "drainer")
        oldest_ms = self._stream.oldest_ms()
        now_ms = clock.now_ms()
        self._redis.hset(
            store.DRAINER_STATUS,
            mapping={
                "name": self._name,
                "pid": os.getpid(),
                "at_ms": now_ms,
                "drained_ms": self._stream.drained_ms,
                "lag_events": self._stream.length(),
                "lag_ms": 0 if oldest_ms is None else max(0, now_ms - oldest_ms),
                "posted": self._bookkeeper.posted,
                "dead_letters": self._bookkeeper.dead,
                "reaped": self._reaper.reaped,
                "replayed": self._janitor.replayed,
                "torn_lines": self._janitor.torn,
                "spools_waiting": self._janitor.waiting,
                "trouble": self._trouble.summary(),
            },
        )
