"""How models and providers have answered: equal to the entries, over everybody, and honest when nothing was asked."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import literal, select

from app.extensions import db
from app.ledger import posting
from app.ledger.measures import DAY_MS, HOUR_MS
from app.metering.usage import UsageEvent
from app.reports import performance
from app.reports.performance import DAYS, HOURS, MONTH_DAYS
from tests.ledger.books import NOON, event, refused_event, some_events

SPAN_MS = 10 * DAY_MS


def test_the_last_day_and_week_of_a_model_equal_the_entries_of_everybody(ledger: Flask) -> None:
    events = some_events(400, seed=11, span_ms=SPAN_MS)
    posting.post(events)
    posting.post([refused_event(refused=99)])  # asked no provider
    told = performance.of_model("echo", at_ms=NOON + 1234)
    for span, first, count, length in (
        (told.day, NOON - (HOURS - 1) * HOUR_MS, HOURS, HOUR_MS),
        (told.week, NOON - NOON % DAY_MS - (DAYS - 1) * DAY_MS, DAYS, DAY_MS),
        (told.month, NOON - NOON % DAY_MS - (MONTH_DAYS - 1) * DAY_MS, MONTH_DAYS, DAY_MS),
    ):
        inside = [one for one in events if one.model == "echo" and one.at_ms >= first]
        assert inside
        assert [point.start_ms for point in span.points] == [first + step * length for step in range(count)]
        assert_equal(span.total, inside)
        for point in span.points:
            assert_equal(point.total, [one for one in inside if 0 <= one.at_ms - point.start_ms < length])
        assert span.providers.keys() == {one.provider_id or "" for one in inside}
        for id, part in span.providers.items():
            assert_equal(part.total, [one for one in inside if (one.provider_id or "") == id])
            assert len(part.points) == count


def test_each_provider_and_model_of_the_last_day_is_told_and_no_other(ledger: Flask) -> None:
    posting.post(
        [
            event(provider_id="a"),
            event(provider_id="a", outcome="error", status=502, person_id="bob"),
            event(provider_id="b", at_ms=NOON - (HOURS - 1) * HOUR_MS),
            event(provider_id="old", at_ms=NOON - (HOURS - 1) * HOUR_MS - 1),
            event(provider_id="other"),
        ]
    )
    told = performance.by("provider_id", ["a", "b", "old", "idle"], at_ms=NOON)
    assert {name: (one.requests, one.errors) for name, one in told.items()} == {"a": (2, 1), "b": (1, 0)}
    assert told["a"].error_share == 0.5
    assert performance.by("model", ["echo"], at_ms=NOON)["echo"].requests == 4


def test_the_month_of_several_models_is_that_of_each(ledger: Flask) -> None:
    posting.post(some_events(300, seed=5, span_ms=SPAN_MS))
    found = performance.month_of(["echo", "nobody"], at_ms=NOON)
    assert list(found) == ["echo"]
    alone = performance.of_model("echo", at_ms=NOON).month
    assert (found["echo"].total, found["echo"].points) == (alone.total, alone.points)


def test_a_rate_is_what_streams_wrote_after_their_first_token(ledger: Flask) -> None:
    stream = {"stream": True, "duration_ms": 2500, "ttft_ms": 500, "completion_tokens": 100}
    posting.post([event(**stream), event(stream=False, duration_ms=9000, ttft_ms=9000, completion_tokens=7)])
    told = performance.of_model("echo", at_ms=NOON).day.total
    assert (told.tokens_per_s, told.mean_ttft_ms, told.stream_share) == (50.0, 500.0, 0.5)


def test_models_are_ranked_by_their_streams_alone(ledger: Flask) -> None:
    stream = {"stream": True, "duration_ms": 2500, "completion_tokens": 100}
    posting.post(
        [
            event(model="slow", ttft_ms=900, **stream),
            event(model="quick", ttft_ms=300, **stream),
            event(model="quick", stream=False, duration_ms=9, ttft_ms=9),
            event(model="whole", stream=False, ttft_ms=1),
            event(model="old", ttft_ms=1, at_ms=NOON - HOURS * HOUR_MS, **stream),
        ]
    )

    def rank(figure: Any, name: str) -> float | None:
        found: float | None = db.session.scalar(select(performance.ranking(figure, literal(name), at_ms=NOON)))
        return found

    assert [rank("mean_ttft_ms", name) for name in ("slow", "quick", "whole", "old")] == [900, 300, None, None]
    assert [rank("tokens_per_s", name) for name in ("slow", "quick")] == [62.5, pytest.approx(45.45, abs=0.01)]


def test_a_model_that_nobody_called_has_no_figures(ledger: Flask) -> None:
    told = performance.of_model("echo", at_ms=NOON)
    assert told.week.total == performance.Performance()
    assert len(told.day.points) == HOURS
    for figure in ("error_share", "stream_share", "mean_duration_ms", "mean_ttft_ms", "tokens_per_s"):
        assert getattr(told.day.total, figure) is None
    assert performance.by("model", [], at_ms=NOON) == {}


def assert_equal(told: performance.Performance, entries: list[UsageEvent]) -> None:
    streams = [one for one in entries if one.stream]
    assert told == performance.Performance(
        requests=len(entries),
        errors=sum(one.outcome == "error" for one in entries),
        cancelled=sum(one.outcome == "cancelled" for one in entries),
        duration_ms=sum(one.duration_ms for one in entries),
        streams=len(streams),
        stream_errors=sum(one.outcome == "error" for one in streams),
        stream_tokens=sum(one.completion_tokens for one in streams),
        stream_ms=sum(one.duration_ms for one in streams),
        ttft_ms=sum(one.ttft_ms or 0 for one in streams),
        ttft_count=sum(one.ttft_ms is not None for one in streams),
    )
