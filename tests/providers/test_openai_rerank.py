"""Documents in order: passed on byte for byte, their usage read wherever it stands, and what is no order is a failure."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway.dialects.rerank import RerankRequest
from app.providers.base import Possible, UpstreamError, UpstreamRequest
from app.providers.openai_rerank import RerankExchange
from tests.providers.canned import Canned

RESULTS = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0}]


def exchange(answer: Any) -> RerankExchange:
    parsed = msgspec.convert({"model": "m", "query": "one two", "documents": ["three", "four five"]}, RerankRequest)
    request = UpstreamRequest(
        capability="rerank", dialect="rerank", model="ours", members={}, parsed=parsed, possible=Possible(1000, 1000, 0)
    )
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    made = RerankExchange(Canned(body).answer, request, "rerank", "sk-secret", 1.0)
    made.receive()
    return made


@settings(deadline=None)  # the first of them reads the vocabulary
@given(
    st.lists(st.tuples(st.integers(0, 99), st.floats(-9, 9) | st.integers(-9, 9)), min_size=1, max_size=9),
    st.booleans(),
)
def test_an_order_is_passed_on_as_it_came_under_the_models_own_name(scores: Any, is_named: bool) -> None:
    results = [{"index": index, "relevance_score": score, "new": "\u4e2d"} for index, score in scores]
    said = {"results": results} | ({"model": "theirs"} if is_named else {})
    body = json.dumps(said, indent=1).encode()
    assert exchange(body).body() == body.replace(b'"model": "theirs"', b'"model":"ours"')


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, 7), ({"usage": {"total_tokens": 7}}, 7),
        ({"meta": {"tokens": {"input_tokens": 7}, "billed_units": {"search_units": 1}}}, 7),
        ({"meta": {"billed_units": {"input_tokens": 7}}}, 7),
        ({"usage": {"prompt_tokens": 0}, "meta": {"tokens": {"input_tokens": 7}}}, 7),
    ],
)  # fmt: skip
def test_usage_is_read_wherever_it_stands(told: dict[str, Any], tokens: int) -> None:
    made = exchange({"results": RESULTS, **told})
    made.body()
    assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.estimated) == (tokens, 0, False)


@pytest.mark.parametrize(
    "told", [{}, {"meta": 5}, {"meta": {"billed_units": "x"}}, {"usage": {"prompt_tokens": 10**9}}]
)
def test_tokens_are_counted_where_nobody_tells_them(told: dict[str, Any]) -> None:
    made = exchange({"results": RESULTS, **told})
    made.body()
    assert made.usage.estimated
    assert made.usage.prompt_tokens == 2 * 2 + 3  # the question with each document


@pytest.mark.parametrize(
    "answer",
    [
        {}, [], {"results": []}, {"results": None}, {"results": [{"index": 0}]}, {"results": {"index": 0}}, b"", b"nonsense",
        {"results": [{"index": 0, "relevance_score": "high"}]}, {"results": [{"index": "0", "relevance_score": 1}]},
        {"results": [*RESULTS, {"index": 0, "relevance_score": None}]}, b'{"results":[{"index":0,"relevance_score":1}]',
    ],
)  # fmt: skip
def test_what_is_no_order_is_a_failure(answer: Any) -> None:
    with pytest.raises(UpstreamError):
        exchange(answer).body()


def test_a_failure_tells_its_reason_and_no_secret() -> None:
    with pytest.raises(UpstreamError) as failed:
        exchange({"error": {"message": "Bad key sk-secret."}}).body()
    assert "Bad key" in failed.value.message and "sk-secret" not in failed.value.message


def test_an_order_is_not_streamed() -> None:
    with pytest.raises(UpstreamError) as failed:
        exchange({"results": RESULTS}).events()
    assert failed.value.refused and failed.value.status == 400
