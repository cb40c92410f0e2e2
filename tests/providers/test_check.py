"""A provider's *Test*: what the upstream lists is a hint, what it answers decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.providers.addresses import AddressPolicy
from app.providers.openai import OpenAI, OpenAISettings
from tests.services.upstream import CHAT, EMBEDDINGS, INVALID_JSON, Answer, Behaviour, Upstream, failure

MODELS = "/v1/models"
NOT_CHAT = failure(400, "This is not a chat model.")


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest.fixture
def adapter(upstream: Upstream) -> Iterator[OpenAI]:
    made = OpenAI(
        OpenAISettings(base_url=upstream.url, api_key="sk-upstream-key", timeout_s=5),
        policy=AddressPolicy(allow_private=True, own_ports=frozenset()),
    )
    yield made
    made.close()


def tried(upstream: Upstream) -> list[str]:
    return [exchange.path for exchange in upstream.requests]


def check(adapter: OpenAI, model: str | None, **given: Any) -> tuple[str, str]:
    found = adapter.check(model=model, prompt=given.get("prompt"), parameters=given.get("parameters", {}))
    return found.result, found.detail


def test_a_model_that_is_not_listed_but_answers_is_there(adapter: OpenAI, upstream: Upstream) -> None:
    assert check(adapter, "unlisted") == ("ok", "The provider serves 'unlisted', which its list does not name.")
    asked = next(exchange for exchange in upstream.requests if exchange.path == CHAT)
    limit = asked.json.get("max_completion_tokens") or asked.json["max_tokens"]
    assert asked.json["model"] == "unlisted" and 1 <= limit <= 16


def test_a_model_that_is_listed_costs_no_call(adapter: OpenAI, upstream: Upstream) -> None:
    assert check(adapter, "small")[0] == "ok"
    assert tried(upstream) == [MODELS]


@pytest.mark.parametrize(
    "said",
    [
        failure(404, "The model `x` does not exist"),
        failure(400, "Invalid model name passed in model=x"),
        failure(400, "model x not found"),
        failure(422, "Unknown model x"),
    ],
)
def test_only_the_real_call_says_that_a_model_is_not_there(
    adapter: OpenAI, upstream: Upstream, said: Behaviour
) -> None:
    upstream.always(CHAT, said)
    upstream.always(EMBEDDINGS, said)
    assert check(adapter, "unlisted")[0] == "model_not_found"


@pytest.mark.parametrize("refusal", [NOT_CHAT, failure(404, "not a chat model"), failure(422, "messages")])
def test_a_model_that_only_embeds_is_there(adapter: OpenAI, upstream: Upstream, refusal: Behaviour) -> None:
    upstream.always(CHAT, refusal)
    assert check(adapter, "unlisted")[0] == "ok"
    assert tried(upstream) == [MODELS, CHAT, EMBEDDINGS]


@pytest.mark.parametrize(
    ("said", "verdict"),
    [(failure(401, "bad key"), "auth_error"), (failure(500, "oh"), "bad_response"), (INVALID_JSON, "bad_response"),
     (failure(400, "temperature is wrong"), "bad_response")],
)  # fmt: skip
def test_other_failures_of_the_call_are_told_as_they_are(
    adapter: OpenAI, upstream: Upstream, said: Behaviour, verdict: str
) -> None:
    upstream.always(CHAT, said)
    upstream.always(EMBEDDINGS, NOT_CHAT)
    assert check(adapter, "unlisted")[0] == verdict


@pytest.mark.parametrize(
    ("said", "told"),
    [({"error": {"message": "The model is loading."}}, "The model is loading."), ({"choices": []}, "can't be read"),
     ({}, "can't be read"), ([], "can't be read"), ({"data": []}, "can't be read")],
)  # fmt: skip
def test_a_good_status_without_an_answer_is_none(adapter: OpenAI, upstream: Upstream, said: object, told: str) -> None:
    upstream.always(CHAT, Answer(said))
    verdict, detail = check(adapter, "unlisted")
    assert verdict == "bad_response" and told in detail


@pytest.mark.parametrize(
    "listing", [failure(403, "no listing"), failure(500, "oh"), INVALID_JSON, Answer({"data": []})]
)
def test_a_list_that_cannot_be_had_keeps_no_model_from_being_tried(
    adapter: OpenAI, upstream: Upstream, listing: Behaviour
) -> None:
    upstream.always(MODELS, listing)
    assert check(adapter, "small") == ("ok", "The provider answers.")
    assert tried(upstream) == [MODELS, CHAT]
