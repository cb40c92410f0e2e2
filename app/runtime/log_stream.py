"""Log lines on their way to the database: each process puts its own into a stream in Redis, from which the drainer takes
them. The hot side has no SQL, and no call waits for a line.

Lines wait in memory, at most `MOST_WAITING`, until a thread has sent them. While Redis is away the oldest are dropped; the
console still has them.

Redis's client is imported by that thread only: gunicorn's master must not load it before its workers let gevent patch TLS.
So the master's own lines stay in the console.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

MOST_WAITING = 5_000
MOST_IN_STREAM = 50_000
AT_ONCE = 500
EVERY_S = 0.5


class LogStream(logging.Handler):
    """Sends formatted lines to Redis, from a thread of each process that logs; with `forks_only` not from the one in which it
    was made."""

    def __init__(self, url: str, *, forks_only: bool = False) -> None:
        super().__init__()
        self._url = url
        self._redis: Redis | None = None
        self._silent = os.getpid() if forks_only else 0
        self._waiting: deque[str] = deque(maxlen=MOST_WAITING)
        self._process = 0  # in which the thread runs: a fork has none
        self._stop = threading.Event()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        if self._silent == os.getpid():
            return
        line = self.format(record)
        if self._process not in (0, os.getpid()):
            self._waiting.clear()  # what waited before a fork is the parent's to send
        self._waiting.append(line)
        if self._process != os.getpid():
            self._process = os.getpid()
            self._stop = threading.Event()
            threading.Thread(target=self._send_all, args=(self._stop,), name="log stream", daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        super().close()

    def flush(self) -> None:
        """Send what waits. While Redis does not answer it goes on waiting: a line about that would only wait too."""
        if not self._waiting:
            return
        from redis import Redis, RedisError

        from app import store

        if self._redis is None:
            self._redis = Redis.from_url(self._url, socket_timeout=2, socket_connect_timeout=2, legacy_responses=False)
        while self._waiting:
            lines = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                with self._redis.pipeline(transaction=False) as pipe:
                    for line in lines:
                        pipe.xadd(store.LOGS, {"line": line}, maxlen=MOST_IN_STREAM, approximate=True)
                    pipe.execute()
            except RedisError:
                self._waiting.extendleft(reversed(lines[: MOST_WAITING - len(self._waiting)]))
                return

    def _send_all(self, stop: threading.Event) -> None:
        while not stop.wait(EVERY_S):
            self.flush()
