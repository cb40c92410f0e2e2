"""The summary statistics: parts add up, and the span is exact."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from flask import Flask

from app.clock import from_ms
from app.ledger import posting
from app.reports.metrics import OTHERS, Metrics, Span, measure
from tests.ledger.books import NOON, event, open_books, settings


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Flask]:
    app = open_books(settings(tmp_path))
    with app.app_context():
        yield app


def span(first: int = NOON, after: int = NOON + 1000) -> Metrics:
    return measure(Span(start=from_ms(first), end=from_ms(after)))


def test_totals_are_the_sum_of_streams_and_others(books: Flask) -> None:
    posting.post(
        [
            event(
                at_ms=NOON,
                stream=True,
                duration_ms=1100,
                ttft_ms=100,
                prompt_tokens=10,
                completion_tokens=50,
                agent="a/1",
            ),
            event(
                at_ms=NOON + 1,
                stream=False,
                duration_ms=300,
                ttft_ms=None,
                prompt_tokens=1,
                completion_tokens=2,
                estimated=True,
            ),
            event(at_ms=NOON + 2, stream=True, outcome="error", status=502, error_code="upstream_error"),
            event(at_ms=NOON + 3, stream=False, outcome="error", status=504, error_code=None),
            event(at_ms=NOON + 4, stream=True, outcome="cancelled", status=499),
            event(at_ms=NOON + 1000),
            event(at_ms=NOON - 1),
        ]
    )
    found = span()
    total, streamed, others = found.requests.total, found.requests.streamed, found.requests.non_streamed
    for one in (total, streamed, others):
        assert one.total == one.successful + one.failed
        assert sum(one.error_types.values()) == one.failed
    assert (total.total, streamed.total, others.total) == (5, 3, 2)
    assert total.error_types == {"http_504": 1, "upstream_error": 1}
    assert streamed.failed == 1
    assert sum(found.model_distribution.values()) == sum(found.origin_distribution.values()) == 5
    assert found.origin_distribution["a/1"] == 1
    assert others.tokens.reported_count == 1


def test_times_and_speeds_are_means_of_what_was_measured(books: Flask) -> None:
    posting.post([event(at_ms=NOON, stream=True, duration_ms=1100, ttft_ms=100, completion_tokens=50)])
    one = span().requests.streamed
    assert (one.avg_response_time_ms, one.avg_time_to_first_token_ms, one.avg_time_to_last_token_ms) == (
        1100,
        100,
        1100,
    )
    assert (one.avg_completion_duration_ms, one.tokens.avg_tokens_per_second) == (1000, 50)


def test_an_empty_span_has_no_means(books: Flask) -> None:
    found = span()
    assert found.requests.total.total == 0
    assert found.requests.total.avg_response_time_ms is None
    assert found.model_distribution == {}


def test_clients_that_name_themselves_in_many_ways_are_one_number(books: Flask) -> None:
    posting.post([event(at_ms=NOON, agent=f"client-{number}") for number in range(120)])
    origins = span().origin_distribution
    assert len(origins) == 101
    assert origins[OTHERS] == 20


def test_a_time_without_a_zone_is_refused(books: Flask) -> None:
    with pytest.raises(ValueError, match="zone"):
        measure(Span(start=datetime(2026, 1, 1)))
