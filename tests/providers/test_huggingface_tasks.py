"""Hugging Face's own tasks, where it has no door of OpenAI's shape."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import providers
from app.directory import Deployment
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter, UpstreamError, UpstreamRequest
from app.providers.huggingface_tasks import TasksRerank
from tests.providers.canned import Canned
from tests.providers.test_gemini import request
from tests.providers.test_openai import values
from tests.services.upstream import Answer, Upstream, failure

POLICY = AddressPolicy(allow_private=True)
UP = Deployment(id="d", provider_id="p", upstream_model="BAAI/bge-m3")
TASK = "/hf-inference/models/BAAI/bge-m3/pipeline/feature-extraction"


def made(base_url: str, **settings: Any) -> Adapter:
    kind = providers.adapter("huggingface")
    return kind(kind.Settings(base_url=base_url, api_key="hf_1", **settings), policy=POLICY)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("base_url", "service", "is_router"),
    [
        ("https://router.huggingface.co/v1", "auto", True), ("https://x.endpoints.huggingface.cloud/v1", "auto", False),
        ("https://proxy.example/hf/v1", "router", True), ("https://router.huggingface.co/v1", "endpoint", False),
    ],
)  # fmt: skip
def test_the_address_tells_the_service_unless_it_is_told(base_url: str, service: str, is_router: bool) -> None:
    with contextlib.closing(made(base_url, service=service)) as adapter:
        assert adapter._is_router is is_router  # type: ignore[attr-defined]


def test_an_endpoint_has_embeddings_of_openai_s_format(upstream: Upstream) -> None:
    with contextlib.closing(made(upstream.url)) as adapter:
        exchange = adapter.open(request("openai_embeddings", "embeddings", input="one"), UP)
        exchange.receive()
        assert json.loads(exchange.body())["model"] == "ours"
        exchange.close()
    assert upstream.last.path == "/v1/embeddings" and upstream.last.json["input"] == "one"


def test_a_try_at_the_router_asks_a_model_that_does_not_chat_for_a_vector(upstream: Upstream) -> None:
    with contextlib.closing(made(f"{upstream.origin}/under/v1", service="router")) as adapter:
        for path in ("/under/v1/chat/completions", "/under/v1/embeddings"):
            upstream.always(path, failure(404, "no such model"))
        upstream.script(f"/under{TASK}", Answer([[0.5]]), failure(404, "nothing there"))
        assert adapter.check(model="BAAI/bge-m3", prompt="Hello", parameters={}).result == "ok"
        assert upstream.last.json == {"inputs": ["Hello"]} and upstream.last.headers["authorization"] == "Bearer hf_1"
        assert adapter.check(model="BAAI/bge-m3", prompt="Hello", parameters={}).result == "model_not_found"


@given(st.lists(values | st.fixed_dictionaries({"index": values, "score": values}), max_size=4))
def test_any_list_of_scores_is_an_order_or_a_failure(said: list[Any]) -> None:
    asked: UpstreamRequest = request("rerank", "rerank", query="q", documents=["a", {"b": 1}], return_documents=True)
    exchange = TasksRerank(Canned(json.dumps(said).encode()).answer, asked, "rerank", None, 1.0)
    exchange.receive()
    with contextlib.suppress(UpstreamError):
        results = json.loads(exchange.body())["results"]
        scores = [one["relevance_score"] for one in results]
        assert results and scores == sorted(scores, reverse=True)
        assert all(one["document"]["text"] in ("a", '{"b":1}') for one in results)
