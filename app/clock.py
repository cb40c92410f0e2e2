"""The one clock of the application. All code reads the time here, so that tests can set it.

Timers, which measure how long something takes, read `time.monotonic` instead. The meter's scripts use Redis's clock;
see docs/metering.md.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
LATEST = datetime(3000, 1, 1, tzinfo=UTC)  # planned dates lie before it, so that adding two of them is still a date


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
    """The current time in UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=now_ns() // 1000)


def from_ms(at_ms: float) -> datetime:
    """The instant in UTC that lies `at_ms` milliseconds after the beginning of 1970."""
    return _EPOCH + timedelta(milliseconds=at_ms)


def to_ms(moment: datetime) -> int:
    """Whole milliseconds from the beginning of 1970 to an instant that knows its time zone."""
    return (moment - _EPOCH) // _MILLISECOND
