"""What sums cannot tell: percentiles and kinds of errors, read from the newest single requests of a span.

Of each question a certain number of entries is looked at, so that the answer costs the same however long the books are;
`cut` says that there were more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Text, false, func, literal, null, select, union_all
from sqlalchemy import cast as cast_sql

from app.extensions import db
from app.ledger.entries import ENTRY, FAILED
from app.reports.planner import IS_REQUEST, Filters, Reader, let_through, span_of

NEWEST = 2_000  # as many tell a percentile of 95, or a share, to about one in a hundred


class Timings(msgspec.Struct, kw_only=True):
    """How long some answered requests took, in ms; None where there were none. Exact, by the nearest rank.

    `tokens_per_s` is the median over streams: tokens written by the seconds from the first one to the end.
    """

    count: int = 0
    duration_p50: int | None = None
    duration_p95: int | None = None
    ttft_p50: int | None = None
    ttft_p95: int | None = None
    tokens_per_s: float | None = None


class Sample(NamedTuple):
    """The newest answered requests of a span: all, streams, and those that were no streams."""

    all: Timings
    streams: Timings
    others: Timings
    cut: bool


class ErrorKind(NamedTuple):
    """Requests that failed in one way."""

    code: str | None
    status: int
    requests: int
    last_ms: int

    @property
    def last(self) -> datetime:
        return datetime.fromtimestamp(self.last_ms / 1000, UTC)


class Errors(NamedTuple):
    """Kinds of errors, most frequent first, of the newest failed requests of a span."""

    kinds: list[ErrorKind]
    counted: int
    cut: bool


class Told(NamedTuple):
    """What single requests of a span tell, and those of the one before it."""

    sample: Sample
    before: Sample
    errors: Errors


def told(reader: Reader, filters: Filters, before: Filters) -> Told:
    """How long the newest requests of two spans took that were answered, as failed and broken off ones have no full
    length; and in which ways the newest of the first span failed. All of it in one query."""
    query = union_all(
        select(_answered(reader, filters, "sample")),
        select(_answered(reader, before, "before")),
        _failed(reader, filters),
    )
    found: dict[str, list[Any]] = {"sample": [], "before": [], "errors": []}
    for row in db.session.execute(query).all():
        found[row[0]].append(row)
    return Told(_sample(found["sample"]), _sample(found["before"]), _errors(found["errors"]))


def _answered(reader: Reader, filters: Filters, name: str) -> Any:
    return (
        select(
            literal(name).label("part"),
            ENTRY.c.stream,
            ENTRY.c.duration_ms,
            ENTRY.c.ttft_ms,
            ENTRY.c.completion_tokens,
            cast_sql(null(), Text).label("code"),
        )
        .where(IS_REQUEST, ENTRY.c.outcome == "ok", *_within(reader, filters))
        .order_by(ENTRY.c.at_ms.desc(), ENTRY.c.id.desc())
        .limit(NEWEST + 1)
        .subquery()
    )


def _failed(reader: Reader, filters: Filters) -> Any:
    """Kinds of errors in the same columns: the status, how many and the last one's time stand where numbers do."""
    newest = (
        select(ENTRY.c.error_code, ENTRY.c.status, ENTRY.c.at_ms)
        .where(IS_REQUEST, FAILED, *_within(reader, filters))
        .order_by(ENTRY.c.at_ms.desc(), ENTRY.c.id.desc())
        .limit(NEWEST + 1)
        .subquery("newest")
    )
    numbers = newest.c.status, func.count(), func.max(newest.c.at_ms)
    query = select(literal("errors"), false(), *numbers, newest.c.error_code)
    return query.group_by(newest.c.error_code, newest.c.status)


def _sample(rows: Sequence[Any]) -> Sample:
    cut, rows = len(rows) > NEWEST, rows[:NEWEST]
    return Sample(
        _timings(rows), _timings([row for row in rows if row[1]]), _timings([row for row in rows if not row[1]]), cut
    )


def _errors(rows: Sequence[Any]) -> Errors:
    kinds = [ErrorKind(code, status, requests, last_ms) for _, _, status, requests, last_ms, code in rows]
    kinds.sort(key=lambda kind: (-kind.requests, kind.status, kind.code or ""))
    counted = sum(kind.requests for kind in kinds)
    return Errors(kinds, min(counted, NEWEST), counted > NEWEST)


def _within(reader: Reader, filters: Filters) -> list[Any]:
    first, after = span_of(filters)
    return [ENTRY.c.at_ms >= first, ENTRY.c.at_ms < after, *let_through(reader, filters, ENTRY)]


def _timings(rows: Sequence[Any]) -> Timings:
    """Of rows of the span, whether it streamed, its length, its time to the first token and its tokens."""
    durations = sorted([row[2] for row in rows])
    first = sorted([row[3] for row in rows if row[3] is not None])
    speeds = sorted(
        [
            tokens * 1000 / (duration - ttft)
            for _, stream, duration, ttft, tokens, _ in rows
            if stream and ttft is not None and tokens and duration > ttft
        ]
    )
    return Timings(
        count=len(rows),
        duration_p50=_percentile(durations, 50),
        duration_p95=_percentile(durations, 95),
        ttft_p50=_percentile(first, 50),
        ttft_p95=_percentile(first, 95),
        tokens_per_s=_percentile(speeds, 50),
    )


def _percentile(ordered: Sequence[Any], percent: int) -> Any:
    """The smallest value that at least `percent` in a hundred do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None
