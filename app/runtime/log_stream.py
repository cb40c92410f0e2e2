"""Log lines on their way to the database: each process puts its own into a stream in Redis, from which the drainer takes
them. The hot side has no SQL, and no call waits for a line.

Lines wait in memory, at most `MOST_WAITING`, until a thread has sent them. While Redis is away the oldest are dropped; the
console still has them.

Nothing is sent before `begin`, which loads Redis's client: gunicorn's master must not load it before its workers let gevent
patch TLS, and a worker must have loaded the application, for two greenlets that import one module wait for each other. So the
master's own lines stay in the console.
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
    """Sends formatted lines to Redis once it has begun, from a thread of each process that logs."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._redis: Redis | None = None
        self._waiting: deque[str] = deque(maxlen=MOST_WAITING)
        self._process = os.getpid()  # whose lines wait
        self._stop: threading.Event | None = None  # of its thread: a fork has none
        atexit.register(self.flush)

    def begin(self) -> None:
        """Send what this process has said and will say, and its forks."""
        from app import store

        self._redis = store.connect_pool(self._url, socket_timeout=2, socket_connect_timeout=2, legacy_responses=False)

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if self._process != os.getpid():
            self._waiting.clear()  # what waited before a fork is the parent's to send
            self._process, self._stop = os.getpid(), None
        self._waiting.append(line)
        if self._redis is not None and self._stop is None:
            self._stop = threading.Event()
            threading.Thread(target=self._send_all, args=(self._stop,), name="log stream", daemon=True).start()

    def close(self) -> None:
        if self._stop is not None:
            self._stop.set()
        super().close()

    def flush(self) -> None:
        """Send what waits. While Redis does not answer it goes on waiting: a line about that would only wait too."""
        if self._redis is None or self._process != os.getpid():
            return
        from redis import RedisError

        from app import store

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
