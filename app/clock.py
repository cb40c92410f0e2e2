"""The one clock of the application: what asks for the present instant asks here, so that tests can set it.

Only timers, which measure how long something takes, read `time.monotonic` by themselves. The meter's scripts go by
Redis's clock; see docs/metering.md.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(3000, 1, 1, tzinfo=UTC)  # what is planned lies before it, so that a sum of two such dates is one


def now_ns() -> int:
    """Nanoseconds since 1970."""
    return time.time_ns()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return now_ns() // 1_000_000


def now_s() -> int:
    """Whole seconds since 1970."""
    return now_ns() // 1_000_000_000


def now() -> datetime:
    """The present instant in UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=now_ns() // 1000)
