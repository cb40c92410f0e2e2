"""Recent performance of models and providers: sums over all calls, from the hourly rollups.

The figures name no person, so a model's page shows them to everyone who can see the model. Time to first token and tokens
per second are those of streams; non-streaming answers have neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import case, func, null, select

from app.clock import from_ms
from app.extensions import db
from app.ledger.measures import DAY_MS, HOUR_MS
from app.reports.planner import EVERYBODY, NONE, Filters, used_in
from app.reports.usage import now_ms

HOURS = 24
DAYS = 7
MONTH_DAYS = 30

_STREAMS = {
    "streams": "requests",
    "stream_errors": "errors",
    "stream_tokens": "completion_tokens",
    "stream_ms": "duration_ms",
    "ttft_ms": "ttft_ms",
    "ttft_count": "ttft_count",
}
_SPEEDS = ("stream_tokens", "stream_ms", "ttft_ms", "ttft_count")
_ALL = ("requests", "errors", "cancelled", "duration_ms")


class Performance(msgspec.Struct, kw_only=True):
    """Sums over calls of one model or provider, times in ms. Without calls every mean and share is None."""

    requests: int = 0
    errors: int = 0
    cancelled: int = 0
    duration_ms: int = 0
    streams: int = 0
    stream_errors: int = 0
    stream_tokens: int = 0
    stream_ms: int = 0
    ttft_ms: int = 0
    ttft_count: int = 0

    @property
    def error_share(self) -> float | None:
        """The share of requests that failed. A request that its client cancelled did not fail."""
        return self.errors / self.requests if self.requests else None

    @property
    def mean_duration_ms(self) -> float | None:
        """The mean duration of a request, failed ones included."""
        return self.duration_ms / self.requests if self.requests else None

    @property
    def stream_share(self) -> float | None:
        return self.streams / self.requests if self.requests else None

    @property
    def mean_ttft_ms(self) -> float | None:
        """The mean time to the first token of streams that had one."""
        return self.ttft_ms / self.ttft_count if self.ttft_count else None

    @property
    def tokens_per_s(self) -> float | None:
        """Completion tokens of streams per second from their first token to their end."""
        writing_ms = self.stream_ms - self.ttft_ms
        return self.stream_tokens / writing_ms * 1000 if self.stream_tokens and writing_ms > 0 else None

    def add(self, other: Performance) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Point(NamedTuple):
    """The performance in one hour or day of UTC."""

    start_ms: int
    total: Performance

    @property
    def start(self) -> datetime:
        return from_ms(self.start_ms)


class Span(NamedTuple):
    """The performance in a span, in total and by hour or day, oldest first, including empty ones; and the same by the
    provider that answered last, by its id ("" if none did)."""

    total: Performance
    points: list[Point]
    providers: dict[str, Span]


class Recent(NamedTuple):
    """The last 24 hours by hour and the last 7 and 30 days by day of UTC, including the current hour and day."""

    day: Span
    week: Span
    month: Span


def last_day(name: str, *, at_ms: int | None = None) -> Span:
    """The performance of one model in the last 24 hours, over all calls."""
    hour = _hour(at_ms)
    return _span(Filters(model=name), [hour - back * HOUR_MS for back in range(HOURS - 1, -1, -1)], hour + HOUR_MS)


def of_model(name: str, *, at_ms: int | None = None) -> Recent:
    """The recent performance of one model, over all calls."""
    hour = _hour(at_ms)
    month = _span(Filters(model=name), _days(hour), hour + HOUR_MS)
    return Recent(day=last_day(name, at_ms=hour), week=_newest(month, DAYS), month=month)


def month_of(names: Iterable[str], *, at_ms: int | None = None) -> dict[str, Span]:
    """The performance of each of these models in the last 30 days, by day and without its providers; those without
    requests are left out."""
    hour = _hour(at_ms)
    found = _points(NONE, _days(hour), hour + HOUR_MS, "model", among=("model", list(names)))
    return {name: _joined(points) for name, points in found.items()}


def ranking(figure: Literal["mean_ttft_ms", "tokens_per_s"], name: Any, *, at_ms: int | None = None) -> Any:
    """A figure of streams of the last 24 hours as SQL, to sort models by: null without it. `name` is the column of the
    model's name."""
    hour = _hour(at_ms)
    first, after = hour - (HOURS - 1) * HOUR_MS, hour + HOUR_MS
    measures = [_STREAMS[one] for one in _SPEEDS]
    used = used_in(EVERYBODY, NONE, first, after, of=["model", "stream"], measures=measures).subquery("used")
    sums = [func.sum(used.c[_STREAMS[one]]).label(one) for one in _SPEEDS]
    figures: dict[str, float] = {}
    for row in db.session.execute(select(used.c.model, *sums).where(used.c.stream).group_by(used.c.model)):
        told = Performance(**{one: int(getattr(row, one) or 0) for one in _SPEEDS})
        if (value := getattr(told, figure)) is not None:
            figures[row.model] = value
    return case(figures, value=name) if figures else null()


def by(
    dimension: Literal["model", "provider_id"], names: Iterable[str], *, at_ms: int | None = None
) -> dict[str, Performance]:
    """The performance of models or providers in the last 24 hours, by name or id; those without requests are left out."""
    hour = _hour(at_ms)
    first, after = hour - (HOURS - 1) * HOUR_MS, hour + HOUR_MS
    used = used_in(EVERYBODY, NONE, first, after, of=["stream"], among=(dimension, list(names))).subquery("used")
    query = select(used.c[dimension].label("name"), *_summed(used)).group_by(used.c[dimension])
    found = {row.name: _performance(row) for row in db.session.execute(query)}
    return {name: performance for name, performance in found.items() if performance.requests}


def _summed(used: Any) -> list[Any]:
    of_streams = [
        func.sum(case((used.c.stream, used.c[measure]), else_=0)).label(name) for name, measure in _STREAMS.items()
    ]
    return [*(func.sum(used.c[name]).label(name) for name in _ALL), *of_streams]


def _performance(row: Any) -> Performance:
    return Performance(**{name: int(getattr(row, name) or 0) for name in (*_ALL, *_STREAMS)})


def _hour(at_ms: int | None) -> int:
    """The start of the hour of a moment, or of now, in Unix ms."""
    moment = now_ms() if at_ms is None else at_ms
    return moment - moment % HOUR_MS


def _days(at_ms: int) -> list[int]:
    """The starts of the last 30 days of UTC, including that of `at_ms`."""
    today = at_ms - at_ms % DAY_MS
    return [today - back * DAY_MS for back in range(MONTH_DAYS - 1, -1, -1)]


def _span(filters: Filters, starts: Sequence[int], after: int) -> Span:
    """The performance in windows that start at `starts`; the last one ends at `after`."""
    providers = {id: _joined(points) for id, points in _points(filters, starts, after, "provider_id").items()}
    points = []
    for place, start in enumerate(starts):
        point = Point(start, Performance())
        for provider in providers.values():
            point.total.add(provider.points[place].total)
        points.append(point)
    return _joined(points, providers)


def _points(
    filters: Filters,
    starts: Sequence[int],
    after: int,
    dimension: Literal["model", "provider_id"],
    among: tuple[str, Sequence[str]] | None = None,
) -> dict[str, list[Point]]:
    """The performance of each model or provider with any request in the windows, by name or id."""
    used = used_in(EVERYBODY, filters, starts[0], after, starts, of=[dimension, "stream"], among=among).subquery("used")
    groups = used.c.window, used.c[dimension].label("name")
    found: dict[str, dict[int, Performance]] = {}
    for row in db.session.execute(select(*groups, *_summed(used)).group_by(used.c.window, used.c[dimension])):
        found.setdefault(row.name, {})[row.window] = _performance(row)
    return {
        name: [Point(start, windows.get(start, Performance())) for start in starts]
        for name, windows in found.items()
        if any(one.requests for one in windows.values())  # calls that were refused asked no provider
    }


def _joined(points: list[Point], providers: dict[str, Span] | None = None) -> Span:
    total = Performance()
    for point in points:
        total.add(point.total)
    return Span(total, points, providers or {})


def _newest(span: Span, count: int) -> Span:
    """The newest points of a span. Providers without a request in them are left out."""
    providers = {id: _joined(one.points[-count:]) for id, one in span.providers.items()}
    used = {id: one for id, one in providers.items() if one.total.requests}
    return _joined(span.points[-count:], used)
