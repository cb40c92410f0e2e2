"""Budget periods: calendar days, weeks and months in the budget's own time zone, or all time.

A period's name is part of the name of its counter, so that nothing ever has to be reset. Every instant lies in
exactly one period, across daylight saving and missing midnights, because a period ends where the next begins.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from app.directory import Period

FOR_EVER_MS = 253_402_300_800_000  # 10000-01-01, where datetime ends


@cache  # they are sought in hundreds of files
def timezones() -> frozenset[str]:
    """The names of the time zone database."""
    return frozenset(available_timezones())


class Window(NamedTuple):
    """A period's name and the half-open span it covers, in Unix milliseconds."""

    name: str
    start_ms: int
    end_ms: int


def spec(period: Period, timezone: str) -> str:
    """How the directory spells a scope's period: "month|Europe/Berlin"."""
    return f"{period}|{timezone}"


ALL_TIME = spec("total", "UTC")


def window_of(spec: str, now_ms: int) -> Window:
    """The period of `spec` that holds the instant `now_ms`."""
    known = _latest.get(spec)
    if known is None or not known.start_ms <= now_ms < known.end_ms:
        if len(_latest) > 4096:
            _latest.clear()
        known = _latest[spec] = _worked_out(spec, now_ms)
    return known


_latest: dict[str, Window] = {}  # the period of each spec that was last asked for


def _worked_out(spec: str, now_ms: int) -> Window:
    period, _, timezone = spec.partition("|")
    if period == "total":
        return Window("total", 0, FOR_EVER_MS)
    zone = ZoneInfo(timezone)
    day = datetime.fromtimestamp(now_ms / 1000, zone).date()
    # A zone may jump over midnight, so the day read off the clock can lie one beside the day that holds the instant.
    for guess in (day, day - timedelta(days=1), day + timedelta(days=1)):
        first, following = _bounds(period, guess)
        window = _window(period, timezone, first, following)
        if window.start_ms <= now_ms < window.end_ms:
            return window
    raise AssertionError(f"no {period} in {timezone} holds {now_ms}")


def _bounds(period: str, day: date) -> tuple[date, date]:
    """The first day of the period that holds `day`, and of the one after it. Weeks begin on Monday (ISO 8601)."""
    if period == "day":
        return day, day + timedelta(days=1)
    if period == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    if period == "month":
        first = day.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)
    raise ValueError(f"unknown period {period!r}")


@lru_cache(maxsize=4096)
def _window(period: str, timezone: str, first: date, following: date) -> Window:
    zone = ZoneInfo(timezone)
    start, end = _first_instant(first, zone), _first_instant(following, zone)
    return Window(f"{period}-{start // 1000}", start, end)


def _first_instant(day: date, zone: ZoneInfo) -> int:
    """When `day` begins in `zone`. Of two midnights the first counts; for a missing one, the instant of the jump.

    A local time in a gap, taken with the offset before it (fold 0), lies just as far after the jump as it lies
    after the gap's beginning; midnight inside a gap therefore needs the jump itself, found by bisection.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    instant = midnight.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return int(instant.timestamp() * 1000)
    low, high = int(instant.timestamp()) - 86_400, int(instant.timestamp()) + 1
    while low + 1 < high:  # the first second whose local date is `day` or later
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).date() < day:
            low = middle
        else:
            high = middle
    return high * 1000
