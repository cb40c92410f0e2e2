"""Percentiles and kinds of errors, which sums can't give: computed from the newest requests of a period.

Each query reads at most `NEWEST` entries, so its cost does not grow with the ledger; `cut` says that there were more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Text, case, func, literal, null, select, union_all
from sqlalchemy import cast as cast_sql

from app.clock import from_ms
from app.extensions import db
from app.ledger.entries import ENTRY, FAILED, REFUSED
from app.reports.planner import IS_REQUEST, Filters, Reader, added, conditions, span_of

NEWEST = 2_000  # enough for the 95th percentile, or a share, to about one in a hundred


class Timings(msgspec.Struct, kw_only=True):
    """Percentiles of answered requests in ms, exact by the nearest rank; None without requests.

    The time to first token is that of streams: others have their first token with their last. `tokens_per_s` is the median
    over streams of completion tokens per second from the first token to the end.
    """

    count: int = 0
    duration_p50: int | None = None
    duration_p95: int | None = None
    ttft_p50: int | None = None
    ttft_p95: int | None = None
    tokens_per_s: float | None = None


class Sample(NamedTuple):
    """Timings of the newest answered requests of a span: all, streaming and non-streaming ones."""

    all: Timings
    streams: Timings
    others: Timings
    cut: bool


class ModelSample(NamedTuple):
    """Timings of a model's newest answered requests, of all and by the provider and the deployment that answered. `since` is
    the oldest of them if there were more."""

    all: Sample
    providers: dict[str, Sample]
    deployments: dict[str, Sample]
    since: datetime | None


class ErrorKind(NamedTuple):
    """Failed requests, or refused calls, with the same code and status."""

    code: str | None
    status: int
    requests: int
    last_ms: int

    @property
    def last(self) -> datetime:
        return from_ms(self.last_ms)


class Errors(NamedTuple):
    """Kinds of errors of the newest failed requests of a span, or of the newest refused calls, most frequent first."""

    kinds: list[ErrorKind]
    counted: int  # of requests, or of refused calls
    cut: bool


class Report(NamedTuple):
    """Timings of a span and of the span before it, and the errors and the refused calls of the first."""

    sample: Sample
    before: Sample
    errors: Errors
    refused: Errors


def report(reader: Reader, filters: Filters, before: Filters) -> Report:
    """The timings of the newest answered requests of two spans, the errors and refused calls of the first, by one query.

    Failed and cancelled requests have no full duration, so timings leave them out.
    """
    query = union_all(
        select(_answered(reader, filters, "sample")),
        select(_answered(reader, before, "before")),
        _kinds(reader, filters, "errors", IS_REQUEST, FAILED),
        _kinds(reader, filters, "refused", REFUSED),
    )
    parts: dict[str, list[Any]] = {"sample": [], "before": [], "errors": [], "refused": []}
    for row in db.session.execute(query).all():
        parts[row[0]].append(row)
    return Report(
        _sample(parts["sample"]), _sample(parts["before"]), _errors(parts["errors"]), _errors(parts["refused"])
    )


def of_model(name: str, first_ms: int, after_ms: int) -> ModelSample:
    """The timings of the newest answered requests of one model in a span, over all calls."""
    query = (
        select(
            func.coalesce(ENTRY.c.provider_id, "").label("provider_id"),
            ENTRY.c.stream,
            ENTRY.c.duration_ms,
            ENTRY.c.ttft_ms,
            ENTRY.c.completion_tokens,
            ENTRY.c.at_ms,
            func.coalesce(ENTRY.c.deployment_id, "").label("deployment_id"),
        )
        .where(IS_REQUEST, ENTRY.c.outcome == "ok", ENTRY.c.model == name)
        .where(ENTRY.c.at_ms >= first_ms, ENTRY.c.at_ms < after_ms)
        .order_by(ENTRY.c.at_ms.desc(), ENTRY.c.id.desc())
        .limit(NEWEST + 1)
    )
    rows = db.session.execute(query).all()
    kept = rows[:NEWEST]
    oldest = from_ms(kept[-1].at_ms) if len(rows) > NEWEST else None
    return ModelSample(
        _sample([row[:6] for row in kept]), _samples(kept, "provider_id"), _samples(kept, "deployment_id"), oldest
    )


def _samples(rows: Sequence[Any], name: str) -> dict[str, Sample]:
    """The timings of rows of `of_model` by one of their columns."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(getattr(row, name), []).append(row[:6])
    return {value: _sample(found) for value, found in groups.items()}


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


def _kinds(reader: Reader, filters: Filters, part: str, *which: Any) -> Any:
    """Kinds of errors in the same columns: status, calls and last time take the place of the numbers, and `stream` says
    whether there were more entries than are read."""
    calls = case((REFUSED, ENTRY.c.refused), else_=1)
    newest = (
        select(ENTRY.c.error_code, ENTRY.c.status, ENTRY.c.at_ms, calls.label("calls"))
        .where(*which, *_within(reader, filters))
        .order_by(ENTRY.c.at_ms.desc(), ENTRY.c.id.desc())
        .limit(NEWEST + 1)
        .subquery(part)
    )
    numbers = newest.c.status, added(newest.c.calls), func.max(newest.c.at_ms)
    is_cut = select(func.count() > NEWEST).select_from(newest).scalar_subquery()
    query = select(literal(part), is_cut, *numbers, newest.c.error_code)
    return query.group_by(newest.c.error_code, newest.c.status)


def _sample(rows: Sequence[Any]) -> Sample:
    cut, rows = len(rows) > NEWEST, rows[:NEWEST]
    return Sample(
        _timings(rows), _timings([row for row in rows if row[1]]), _timings([row for row in rows if not row[1]]), cut
    )


def _errors(rows: Sequence[Any]) -> Errors:
    kinds = [ErrorKind(code, status, calls, last_ms) for _, _, status, calls, last_ms, code in rows]
    kinds.sort(key=lambda kind: (-kind.requests, kind.status, kind.code or ""))
    return Errors(kinds, sum(kind.requests for kind in kinds), any(row[1] for row in rows))


def _within(reader: Reader, filters: Filters) -> list[Any]:
    first, after = span_of(filters)
    return [ENTRY.c.at_ms >= first, ENTRY.c.at_ms < after, *conditions(reader, filters, ENTRY)]


def _timings(rows: Sequence[Any]) -> Timings:
    """Timings from rows of (part, stream, duration_ms, ttft_ms, completion_tokens, code)."""
    durations = sorted([row[2] for row in rows])
    first = sorted([row[3] for row in rows if row[1] and row[3] is not None])
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
    """The smallest value that at least `percent` per cent of the values do not exceed; None without values."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None
