"""Summary statistics of all calls in a span, for programs that watch: counts, times, tokens, errors, by model and by client.

One pass over the ledger's entries of the span, so that the parts always add up.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Text, case, func, select
from sqlalchemy import cast as cast_sql

from app import clock
from app.clock import to_ms
from app.extensions import db
from app.ledger.entries import ENTRY
from app.reports.planner import IS_REQUEST

USUAL_SPAN = timedelta(days=1)
MOST_NAMES = 100  # of a distribution: clients name themselves
OTHERS, UNNAMED = "other", "unknown"


class TokenFigures(msgspec.Struct, kw_only=True):
    """Tokens of requests. `reported_count` are those whose provider told its usage; the others are counted here."""

    reported_count: int = 0
    total: int = 0
    prompt_total: int = 0
    completion_total: int = 0
    avg_tokens_per_second: float | None = None


class Figures(msgspec.Struct, kw_only=True):
    """Requests that ended in the span, `total` = `successful` + `failed`; one that its client cancelled did not fail. Averages
    are None without requests."""

    total: int = 0
    successful: int = 0
    failed: int = 0
    avg_response_time_ms: float | None = None
    avg_time_to_first_token_ms: float | None = None
    avg_time_to_last_token_ms: float | None = None
    avg_completion_duration_ms: float | None = None
    tokens: TokenFigures = msgspec.field(default_factory=TokenFigures)
    error_types: dict[str, int] = {}


class Requests(msgspec.Struct, kw_only=True):
    total: Figures
    streamed: Figures
    non_streamed: Figures


class Metrics(msgspec.Struct, kw_only=True):
    """`origin_distribution` counts requests by what their client calls itself."""

    requests: Requests
    model_distribution: dict[str, int]
    origin_distribution: dict[str, int]


class Span(msgspec.Struct, kw_only=True):
    """From `start` to before `end`; by default the 24 hours before `end`, and `end` is now."""

    start: datetime | None = None
    end: datetime | None = None


_COUNT, _DURATION, _TTFT, _TTFTS, _FROM_FIRST, _FROM_FIRST_COUNT, _PROMPT, _COMPLETION, _REPORTED = range(9)


def measure(span: Span) -> Metrics:
    """The statistics of a span. Raises `ValueError` if a time has no zone."""
    for moment in (span.start, span.end):
        if moment is not None and moment.tzinfo is None:
            raise ValueError("a time needs its zone")
    end = span.end or clock.now()
    first, after = max(0, to_ms(span.start or end - USUAL_SPAN)), max(0, to_ms(end))
    failed = ENTRY.c.outcome == "error"
    kind = func.coalesce(ENTRY.c.error_code, "http_" + cast_sql(ENTRY.c.status, Text))
    has_first = ENTRY.c.ttft_ms.is_not(None)
    groups = (ENTRY.c.stream, ENTRY.c.model, ENTRY.c.agent, case((failed, kind)).label("error"))
    numbers = (
        func.count(),
        func.sum(ENTRY.c.duration_ms),
        func.coalesce(func.sum(ENTRY.c.ttft_ms), 0),
        func.sum(case((has_first, 1), else_=0)),
        func.sum(case((has_first, ENTRY.c.duration_ms - ENTRY.c.ttft_ms), else_=0)),
        func.sum(case((has_first, ENTRY.c.completion_tokens), else_=0)),
        func.sum(ENTRY.c.prompt_tokens),
        func.sum(ENTRY.c.completion_tokens),
        func.sum(case((ENTRY.c.estimated, 0), else_=1)),
    )
    query = select(*groups, *numbers).where(IS_REQUEST, ENTRY.c.at_ms >= first, ENTRY.c.at_ms < after).group_by(*groups)
    sums: dict[bool, list[int]] = {True: [0] * len(numbers), False: [0] * len(numbers)}
    errors: dict[bool, dict[str, int]] = {True: defaultdict(int), False: defaultdict(int)}
    models: dict[str, int] = defaultdict(int)
    origins: dict[str, int] = defaultdict(int)
    for stream, model, agent, error, *values in db.session.execute(query):
        for place, value in enumerate(values):
            sums[stream][place] += int(value)
        models[model] += values[_COUNT]
        origins[agent or UNNAMED] += values[_COUNT]
        if error is not None:
            errors[stream][error] += values[_COUNT]
    both = [a + b for a, b in zip(sums[True], sums[False], strict=True)]
    all_errors = {
        name: errors[True].get(name, 0) + errors[False].get(name, 0) for name in {*errors[True], *errors[False]}
    }
    return Metrics(
        requests=Requests(
            total=_figures(both, all_errors),
            streamed=_figures(sums[True], errors[True]),
            non_streamed=_figures(sums[False], errors[False]),
        ),
        model_distribution=_largest(models),
        origin_distribution=_largest(origins),
    )


def _figures(sums: list[int], errors: dict[str, int]) -> Figures:
    count, failed = sums[_COUNT], sum(errors.values())
    return Figures(
        total=count,
        successful=count - failed,
        failed=failed,
        avg_response_time_ms=_mean(sums[_DURATION], count),
        avg_time_to_first_token_ms=_mean(sums[_TTFT], sums[_TTFTS]),
        avg_time_to_last_token_ms=_mean(sums[_FROM_FIRST] + sums[_TTFT], sums[_TTFTS]),
        avg_completion_duration_ms=_mean(sums[_FROM_FIRST], sums[_TTFTS]),
        tokens=TokenFigures(
            reported_count=sums[_REPORTED],
            total=sums[_PROMPT] + sums[_COMPLETION],
            prompt_total=sums[_PROMPT],
            completion_total=sums[_COMPLETION],
            avg_tokens_per_second=_mean(sums[_FROM_FIRST_COUNT] * 1000, sums[_FROM_FIRST]),
        ),
        error_types=_largest(errors),
    )


def _mean(total: int, count: int) -> float | None:
    return round(total / count, 3) if count else None


def _largest(counts: dict[str, Any]) -> dict[str, int]:
    """The largest, in order; the rest is one number."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = dict(ordered[:MOST_NAMES])
    if rest := sum(count for _, count in ordered[MOST_NAMES:]):
        found[OTHERS] = found.get(OTHERS, 0) + rest
    return found
