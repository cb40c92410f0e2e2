"""Completions, by the official SDK and on real sockets: every shape of a prompt is bounded, passed on and charged."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import COMPLETIONS as PATH
from tests.services.upstream import GARBAGE, INVALID_JSON, WRONG_TYPE, Answer, Stream, Upstream, failure, usage


@pytest.fixture
def gate(gate: Gate) -> Gate:
    gate.model("writer", "up", capabilities=("completions",))
    gate.model("short", "up", capabilities=("completions", "embeddings"), context_window=100)
    return gate


def answer(*texts: str, told: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    choices = [{"index": i, "text": text, "logprobs": None, "finish_reason": "stop"} for i, text in enumerate(texts)]
    said = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "writer-up", "choices": choices} | more
    return said if told is None else said | {"usage": told}


@pytest.mark.parametrize(
    "prompt", ["one two three", ["one two", "three"], [1, 2, 3], [[1, 2], [3]], "", ["", "two"], [[0]]]
)
def test_a_prompt_of_every_shape_is_passed_on_as_it_came(
    gate: Gate, upstream: Upstream, sdk: openai.OpenAI, prompt: Any
) -> None:
    upstream.script(PATH, Answer(answer(" four", told=usage(3, 1))))
    said = sdk.completions.create(model="writer", prompt=prompt, logprobs=2, echo=True, suffix=".", seed=7)
    assert (said.model, said.choices[0].text) == ("writer", " four")
    asked = upstream.requests[-1].json
    assert asked == {
        "model": "writer-up", "prompt": prompt, "logprobs": 2, "echo": True, "suffix": ".", "seed": 7, "max_tokens": 16
    }  # fmt: skip
    (event,) = gate.events()
    assert (event.prompt_tokens, event.completion_tokens, event.cost_nano) == (3, 1, 3 * 1000 + 2000)
    assert (event.endpoint, event.api_type, event.estimated) == ("/v1/completions", "completions", False)


@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_stream_ends_with_its_usage_if_that_is_asked_for(
    gate: Gate, upstream: Upstream, sdk: openai.OpenAI, wants_usage: bool
) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if wants_usage else {}
    chunks = list(sdk.completions.create(model="writer", prompt="one two three", stream=True, **options))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices).split() == ["one", "two", "three"]
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [3] * wants_usage
    assert upstream.requests[-1].json["stream_options"] == {"include_usage": True}
    (event,) = gate.events()
    assert (event.prompt_tokens, event.completion_tokens, event.stream, event.finish_reason) == (3, 3, True, "stop")


def test_a_stream_of_several_prompts_is_whole_when_all_of_their_choices_are(
    gate: Gate, upstream: Upstream, client: Client
) -> None:
    parts = [{"choices": [{"index": i, "text": f"t{i}", "finish_reason": "stop"}]} for i in range(4)]
    for number, is_whole in ((4, True), (3, False)):
        upstream.script(PATH, Stream(parts[:number], done=False))
        said = client("/v1/completions", {"model": "writer", "prompt": ["a", "b"], "n": 2, "stream": True})
        assert (b"[DONE]" in said.body, b'"error"' in said.body) == (is_whole, not is_whole)


def test_tokens_are_counted_where_nobody_tells_them(gate: Gate, upstream: Upstream, client: Client) -> None:
    for prompt, tokens in (("one two three", 3), ([1, 2, 3, 4], 4), ([[1], [2, 3]], 3), (["one two", "three"], 3)):
        upstream.script(PATH, Answer(answer(" four five")))
        assert client("/v1/completions", {"model": "writer", "prompt": prompt}).json["usage"]["prompt_tokens"] == tokens
        event = gate.events()[-1]
        assert (event.prompt_tokens, event.completion_tokens, event.estimated) == (tokens, 2, True)


def test_tokens_of_a_stream_are_counted_where_nobody_tells_them(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, Stream([{"choices": [{"index": 0, "text": " four", "finish_reason": None}]}], cut_after=1))
    said = client("/v1/completions", {"model": "writer", "prompt": [1, 2, 3, 4], "stream": True})
    assert b"upstream_cut" in said.body
    (event,) = gate.events()
    assert (event.prompt_tokens, event.completion_tokens, event.outcome) == (4, 1, "error")


@pytest.mark.parametrize(
    ("fields", "tokens_out"),
    [
        ({}, 16), ({"max_tokens": 100}, 100), ({"n": 3}, 3 * 16), ({"best_of": 5}, 5 * 16), ({"n": 2, "best_of": 2}, 32),
        ({"prompt": ["a", "b", "c"], "n": 2}, 6 * 16), ({"max_tokens": 0}, 0),
    ],
)  # fmt: skip
def test_a_hold_covers_every_answer_of_every_prompt(
    gate: Gate, upstream: Upstream, client: Client, fields: dict[str, Any], tokens_out: int
) -> None:
    gate.limit("user", "person-1", "1")
    body = {"model": "writer", "prompt": "a"} | fields
    upstream.always(PATH, Answer(answer("x", told=usage(1, 0))))
    held = []
    for echo in (False, True):
        assert client("/v1/completions", body | {"echo": echo}).status == 200
        held.append(gate.events()[-1].hold_nano)
    input_most = 1000 * 600
    assert tokens_out * 2000 < held[0] < tokens_out * 2000 + input_most
    assert held[1] > held[0]  # what is echoed may be charged as output


def test_a_limit_of_nothing_reaches_the_upstream(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, Answer(answer("Hello", told=usage(1, 0))))
    assert (
        client("/v1/completions", {"model": "writer", "prompt": "Hello", "max_tokens": 0, "echo": True}).status == 200
    )
    assert upstream.requests[-1].json["max_tokens"] == 0
    assert gate.events()[0].cost_nano == 1000


def test_many_prompts_may_be_longer_than_a_window_together(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, Answer(answer("a", "b", "c", told=usage(250, 3))))
    assert client("/v1/completions", {"model": "short", "prompt": ["word " * 80] * 3}).status == 200
    upstream.script("/v1/embeddings", Answer({"data": [{"embedding": [1]}] * 3, "usage": {"prompt_tokens": 250}}))
    assert client("/v1/embeddings", {"model": "short", "input": ["word " * 80] * 3}).status == 200
    assert [(event.prompt_tokens, event.estimated) for event in gate.events(2)] == [(250, False)] * 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": 7}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", [1]]}, "prompt[1]"), ({"prompt": ["a", 1]}, "prompt[1]"), ({"prompt": [[-1]]}, "prompt[0]"),
        ({"max_tokens": -1}, "max_tokens"), ({"n": 0}, "n"), ({"n": 129}, "n"), ({"best_of": 21}, "best_of"),
        ({"n": 3, "best_of": 2}, "best_of"), ({"logprobs": 6}, "logprobs"), ({"temperature": 2.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"), ({"stop": list("abcde")}, "stop"), ({"logit_bias": {"50256": 200}}, "logit_bias"),
        ({"echo": "yes"}, "echo"), ({"suffix": 1}, "suffix"), ({"seed": 1.5}, "seed"), ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}, "stream": True}, "stream_options.include_usage"),
        ({"model": "small"}, "model"), ({"api_base": "http://x"}, "api_base"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_told(gate: Gate, client: Client, fields: dict[str, Any], param: str) -> None:
    told = client("/v1/completions", {"model": "writer", "prompt": "Hello"} | fields)
    assert told.error[:2] == (400, "invalid_request_error")
    assert (told.param or "").partition("`")[0].removesuffix("[...]") == param


@pytest.mark.parametrize("missing", ["model", "prompt"])
def test_what_is_missing_is_told(gate: Gate, client: Client, missing: str) -> None:
    body = {"model": "writer", "prompt": "Hello"}
    del body[missing]
    told = client("/v1/completions", body)
    assert (told.status, told.param) == (400, missing)


def test_null_counts_as_absent(gate: Gate, upstream: Upstream, client: Client) -> None:
    names = ("best_of", "echo", "logit_bias", "logprobs", "max_tokens", "n", "seed", "stop", "stream", "suffix", "top_p",
             "prompt", "temperature", "frequency_penalty", "presence_penalty", "stream_options", "user")  # fmt: skip
    upstream.script(PATH, Answer(answer("x", told=usage(1, 1))))
    assert client("/v1/completions", {"model": "writer"} | dict.fromkeys(names)).status == 200


@pytest.mark.parametrize(
    "said",
    [
        GARBAGE, INVALID_JSON, WRONG_TYPE, failure(500), failure(401), Answer({"error": {"message": "overloaded"}}),
        Answer({"choices": []}), Answer({"choices": [{"index": 0, "message": {"content": "a chat"}}]}), Answer({}),
        Answer(answer("Hello"), cut_after=30),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_costs_nothing_and_the_next_deployment_is_asked(
    gate: Gate, upstream: Upstream, client: Client, said: Any
) -> None:
    body = {"model": "writer", "prompt": "Hello"}
    upstream.script(PATH, said)
    assert client("/v1/completions", body).status == 502
    assert (gate.events()[0].cost_nano, gate.events()[0].outcome) == (0, "error")
    gate.provider("second", base_url=upstream.url)
    gate.model("both", "up", "second", capabilities=("completions",))
    upstream.script(PATH, said, Answer(answer("Hello", told=usage(1, 1))))
    told = Client(gate, gate.key())("/v1/completions", body | {"model": "both"})
    assert (told.status, told.json["choices"][0]["text"]) == (200, "Hello")
    (_, event) = gate.events(2)
    assert (event.attempt, event.cost_nano, event.provider_id) == (2, 3000, "provider-second")


def test_a_refusal_is_passed_on(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, failure(400, "no logprobs here"))
    told = client("/v1/completions", {"model": "writer", "prompt": "Hello"})
    assert (told.status, told.json["error"]["message"]) == (400, "no logprobs here")


def test_steering_stays_here_and_what_is_unknown_passes(gate: Gate, upstream: Upstream, client: Client) -> None:
    body = {"model": "writer", "prompt": "Hello", "provider": "up", "fallback_providers": ["up"], "min_tokens": 3}
    assert client("/v1/completions", body).status == 200
    assert upstream.requests[-1].json == {
        "model": "writer-up", "prompt": "Hello", "min_tokens": 3, "max_tokens": 16
    }  # fmt: skip
