"""The drainer's part that takes log lines out of Redis into the database, and deletes those that are too old."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, cast

from redis import Redis

from app import store

AT_ONCE = 500
CLEAN_EVERY_S = 60.0
MOST_DELETED = 5_000  # of one turn


class Logbook:
    """`write` runs in an application context."""

    def __init__(self, redis: Redis, retention_days: Callable[[], int]) -> None:
        self._redis = redis
        self._days = retention_days
        self._clean_at = 0.0

    def _take(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return cast("list[tuple[bytes, dict[bytes, bytes]]]", self._redis.xrange(store.LOGS, count=AT_ONCE))

    def write(self) -> None:
        """Take what is there, a batch at a time. Redis forgets a line when it is committed."""
        from app.domain import log_entries
        from app.extensions import db, transaction

        try:
            while entries := self._take():
                transaction(log_entries.keep, [(_place(id), _line(fields)) for id, fields in entries])
                self._redis.xdel(store.LOGS, *(id for id, _ in entries))
                if len(entries) < AT_ONCE:
                    break
            if time.monotonic() >= self._clean_at:
                self._clean_at = time.monotonic() + CLEAN_EVERY_S
                transaction(log_entries.forget, self._days(), MOST_DELETED)
        finally:
            db.session.remove()


def _place(id: bytes) -> str:
    """A stream's id as a text that sorts by time."""
    ms, _, number = id.decode().partition("-")
    return f"{int(ms):015d}-{int(number):08d}"


def _line(fields: dict[bytes, bytes]) -> dict[str, Any]:
    try:
        line = json.loads(fields[b"line"])
    except (KeyError, ValueError):
        line = None
    return line if isinstance(line, dict) else {"level": "error", "event": "a log line could not be read"}
