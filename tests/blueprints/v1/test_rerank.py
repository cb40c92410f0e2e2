"""Documents in order: passed on as they came, and charged by what a model reads."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import GARBAGE, INVALID_JSON, WRONG_TYPE, Answer, Behaviour, Hang, Upstream, failure

PATH = "/v1/rerank"
RESULTS = [{"index": 1, "relevance_score": 0.97}, {"index": 0, "relevance_score": 2e-7}]
DOCUMENTS = ["A boat", "A strawberry"]


@pytest.fixture
def gate(gate: Gate) -> Gate:
    gate.model("ranker", "up", capabilities=("rerank",), max_output_tokens=None, context_window=100)
    return gate


def asking(model: str = "ranker", **more: Any) -> dict[str, Any]:
    return {"model": model, "query": "What is red?", "documents": DOCUMENTS} | more


def ranked(**more: Any) -> Answer:
    return Answer({"id": "r-1", "results": RESULTS} | more)


@pytest.mark.parametrize(
    ("told", "tokens", "estimated"),
    [
        ({"usage": {"total_tokens": 21}}, 21, False), ({"usage": {"prompt_tokens": 22, "total_tokens": 22}}, 22, False),
        ({"meta": {"tokens": {"input_tokens": 23, "output_tokens": 0}}}, 23, False),
        ({"meta": {"billed_units": {"input_tokens": 24}}}, 24, False), ({}, 12, True),
        ({"meta": {"billed_units": {"search_units": 1}}}, 12, True), ({"meta": "none", "usage": []}, 12, True),
        ({"usage": {"total_tokens": 10**9}}, 12, True),
    ],
)  # fmt: skip
def test_the_answer_is_passed_on_and_what_was_read_is_charged(
    gate: Gate, upstream: Upstream, client: Client, told: Any, tokens: int, estimated: bool
) -> None:
    upstream.script(PATH, ranked(**told))
    answer = client(PATH, asking(top_n=2, return_documents=False))
    assert answer.json == {"id": "r-1", "results": RESULTS} | told
    assert upstream.requests[-1].json == {
        "model": "ranker-up", "query": "What is red?", "documents": DOCUMENTS, "top_n": 2, "return_documents": False
    }  # fmt: skip
    (event,) = gate.events()
    assert (event.prompt_tokens, event.completion_tokens, event.estimated) == (tokens, 0, estimated)
    assert (event.cost_nano, event.endpoint, event.api_type) == (tokens * 1000, PATH, "rerank")


def test_openais_sdk_can_ask_too(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    upstream.script(PATH, ranked())
    answer: Any = sdk.post("/rerank", cast_to=object, body=asking())
    assert answer["results"] == RESULTS


def test_the_question_counts_with_each_document(gate: Gate, upstream: Upstream, client: Client) -> None:
    gate.limit("user", "person-1", "1")
    upstream.always(PATH, ranked(usage={"total_tokens": 9_000}))
    assert client(PATH, asking(query="red " * 20, documents=["A boat"] * 200)).status == 200
    (event,) = gate.events()  # each pair may fill the context window
    assert (event.prompt_tokens, event.estimated) == (9_000, False)
    assert event.hold_nano > 200 * 80 * 1000


def test_documents_may_be_objects(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, ranked())
    documents = [{"text": "A boat"}, {"title": "A strawberry", "text": ""}]
    assert client(PATH, asking(documents=documents, rank_fields=["title", "text"])).status == 200
    assert upstream.requests[-1].json["documents"] == documents
    assert gate.events()[0].prompt_tokens == 12


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"), ({"query": 7}, "query"), ({"documents": []}, "documents"),
        ({"documents": "A boat"}, "documents"), ({"documents": ["a", 7]}, "documents[1]"),
        ({"documents": ["a"] * 10_001}, "documents"), ({"top_n": 0}, "top_n"), ({"top_n": "all"}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"), ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"model": "small"}, "model"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_told(gate: Gate, client: Client, fields: dict[str, Any], param: str) -> None:
    answer = client(PATH, asking(**fields))
    assert answer.error[:2] == (400, "invalid_request_error")
    assert answer.param == param


@pytest.mark.parametrize("missing", ["model", "query", "documents"])
def test_what_is_missing_is_told(gate: Gate, client: Client, missing: str) -> None:
    body = asking()
    del body[missing]
    answer = client(PATH, body)
    assert (answer.status, answer.param) == (400, missing)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (GARBAGE, ""), (INVALID_JSON, ""), (WRONG_TYPE, ""), (failure(500), ""), (Answer({}), ""), (Answer([]), ""),
        (Answer({"message": "overloaded"}), "overloaded"), (Answer({"results": []}), ""), (Answer({"results": 7}), ""),
        (Answer({"results": [{"index": 0}]}), ""), (Answer({"results": [{"index": 0, "relevance_score": None}]}), ""),
        (Answer({"results": [{"relevance_score": 1}]}), ""), (Answer({"results": RESULTS}, cut_after=30), ""),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_costs_nothing_and_the_next_deployment_is_asked(
    gate: Gate, upstream: Upstream, client: Client, said: Behaviour, message: str
) -> None:
    upstream.script(PATH, said)
    answer = client(PATH, asking())
    assert answer.status == 502 and message in answer.json["error"]["message"]
    assert (gate.events()[0].cost_nano, gate.events()[0].outcome) == (0, "error")
    gate.provider("second", base_url=upstream.url)
    gate.model("both", "up", "second", capabilities=("rerank",))
    upstream.script(PATH, said, ranked(usage={"total_tokens": 21}))
    assert Client(gate, gate.key())(PATH, asking("both")).json["results"] == RESULTS
    (_, event) = gate.events(2)
    assert (event.attempt, event.cost_nano, event.provider_id) == (2, 21_000, "provider-second")


def test_a_refusal_is_passed_on(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, failure(400, "too many documents"))
    answer = client(PATH, asking())
    assert (answer.status, answer.json["error"]["message"]) == (400, "too many documents")


def test_silence_ends_after_the_providers_patience(gate: Gate, upstream: Upstream, client: Client) -> None:
    gate.provider("up", base_url=upstream.url, timeout_s=1)
    upstream.script(PATH, Hang())
    assert client(PATH, asking()).error == (504, "upstream_error", "upstream_timeout")


def test_steering_stays_here_and_what_is_unknown_passes(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, ranked(model="ranker-up"))
    answer = client(PATH, asking(provider="up", fallback_providers=["up"], truncate="END"))
    assert answer.json["model"] == "ranker"
    assert upstream.requests[-1].json == {
        "model": "ranker-up", "query": "What is red?", "documents": DOCUMENTS, "truncate": "END"
    }  # fmt: skip
