"""A model of Gemini's behind OpenAI's official client: it notices no difference but the address."""

from __future__ import annotations

import json
import random
from typing import Any

import openai
import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.odd_values import ODD
from tests.services.upstream import Answer, Hang, Upstream, chunks_of_gemini, generated, part_of_gemini, stay_open

MESSAGES: Any = [{"role": "user", "content": "one two three"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}},
    }
    for name in ("look_up", "add_up")
]
WHOLE, STREAM = "/v1beta/models/gemini-up:generateContent", "/v1beta/models/gemini-up:streamGenerateContent"
INTERNAL = ("10.1.2.3", "AIza-1", "127.0.0.1")

pytestmark = pytest.mark.both_lanes


@pytest.fixture(autouse=True)
def gemini(gate: Gate, upstream: Upstream) -> None:
    gate.provider("gemini", "gemini", base_url=upstream.origin, api_key="AIza-1", timeout_s=2)
    gate.model("gemini", "gemini", capabilities=("chat", "embeddings"))


def ask(sdk: openai.OpenAI, **more: Any) -> Any:
    return sdk.chat.completions.create(**{"model": "gemini", "messages": MESSAGES} | more)


def test_a_chat_is_answered_and_charged(sdk: openai.OpenAI, gate: Gate, upstream: Upstream) -> None:
    answer = ask(sdk, max_completion_tokens=50)
    assert (answer.model, answer.choices[0].message.content, answer.choices[0].finish_reason) == (
        "gemini",
        "one two three",
        "stop",
    )
    assert (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.usage.prompt_tokens_details.cached_tokens,
    ) == (12, 3, 5)
    sent = upstream.last
    assert sent.json["generationConfig"] == {"maxOutputTokens": 50}
    assert (
        sent.headers["x-goog-api-key"] == "AIza-1" and "AIza" not in sent.path and "authorization" not in sent.headers
    )
    (event,) = gate.events()
    assert (event.prompt_tokens, event.cached_tokens, event.completion_tokens, event.estimated) == (12, 5, 3, False)


def test_a_stream_comes_in_pieces_and_tells_its_usage(sdk: openai.OpenAI) -> None:
    chunks = list(ask(sdk, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three "
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [15]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason] == [
        "stop"
    ]
    with sdk.chat.completions.stream(model="gemini", messages=MESSAGES, tools=TOOLS) as stream:
        final = stream.get_final_completion()
    assert [call.function.name for call in final.choices[0].message.tool_calls or ()] == ["look_up", "add_up"]


@pytest.mark.parametrize("keeps", [True, False], ids=["that keeps what it got", "that drops what it does not know"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_conversation_with_tools_keeps_its_signatures(
    sdk: openai.OpenAI, upstream: Upstream, keeps: bool, stream: bool
) -> None:
    """With a client that gives back whole messages, and with one that gives back what it knows."""
    if stream:
        calls = [
            call for chunk in ask(sdk, tools=TOOLS, stream=True) for call in chunk.choices[0].delta.tool_calls or ()
        ]
    else:
        calls = ask(sdk, tools=TOOLS).choices[0].message.tool_calls
    made = []
    for call in calls:
        one = call.model_dump(exclude={"index"}, exclude_none=True)
        made.append(one if keeps else {"id": one["id"], "type": "function", "function": one["function"]})
    assert ("extra_content" in made[0]) is keeps and [one["id"] for one in made] == ["fc_0", "fc_1"]
    results = [{"role": "tool", "tool_call_id": one["id"], "content": "forty two"} for one in reversed(made)]
    history = [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": made}, *results]
    ask(sdk, messages=history, tools=TOOLS)
    called, told = upstream.last.json["contents"][1:]
    assert [part.get("thoughtSignature") for part in called["parts"]] == ["c2lnbmVk", None]
    assert [part["functionResponse"]["id"] for part in told["parts"]] == ["fc_0", "fc_1"]


def test_a_history_of_another_model_goes_on(sdk: openai.OpenAI, upstream: Upstream) -> None:
    made = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    history = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "call_1", "content": "x"},
    ]
    assert ask(sdk, messages=history).choices[0].message.content == "Hello"
    assert upstream.last.json["contents"][1]["parts"][0]["thoughtSignature"] == "skip_thought_signature_validator"


def test_what_few_upstreams_take_reaches_gemini(sdk: openai.OpenAI, upstream: Upstream) -> None:
    ask(sdk, seed=7, presence_penalty=0.5, response_format={"type": "json_object"}, reasoning_effort="low", stop="x")
    assert upstream.last.json["generationConfig"] | {"maxOutputTokens": 0} == {
        "seed": 7, "presencePenalty": 0.5, "responseMimeType": "application/json", "stopSequences": ["x"], "maxOutputTokens": 0,
        "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True},
    }  # fmt: skip


def test_the_limit_that_is_sent_is_the_one_that_is_held_for(
    sdk: openai.OpenAI, gate: Gate, key: str, upstream: Upstream
) -> None:
    gate.limit("key", f"key-{key[-6:]}", "1")
    ask(sdk)
    limit = upstream.last.json["generationConfig"]["maxOutputTokens"]
    (event,) = gate.events()
    assert limit > 0 and event.hold_nano >= event.cost_nano > 0


@pytest.mark.parametrize("given", ["a text", ["a", "bcd"]])
def test_vectors_come_in_floats_and_in_the_client_s_own_base64(sdk: openai.OpenAI, gate: Gate, given: Any) -> None:
    by_default = sdk.embeddings.create(model="gemini", input=given, dimensions=8)
    floats = sdk.embeddings.create(model="gemini", input=given, dimensions=8, encoding_format="float")
    texts = [given] if isinstance(given, str) else given
    for one, other, text in zip(by_default.data, floats.data, texts, strict=True):
        assert one.embedding == other.embedding == [len(text), *[0.5] * 7]
    assert by_default.model == "gemini" and all(event.estimated for event in gate.events(2))


def test_a_prompt_that_is_blocked_is_an_answer_that_was_filtered(
    sdk: openai.OpenAI, gate: Gate, upstream: Upstream
) -> None:
    told = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}}
    upstream.script(WHOLE, Answer(told))
    choice = ask(sdk).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("content_filter", None)
    (event,) = gate.events()
    assert (event.prompt_tokens, event.completion_tokens, event.estimated) == (9, 0, False)


def test_a_call_that_is_none_is_tried_elsewhere_and_charged(sdk: openai.OpenAI, gate: Gate, upstream: Upstream) -> None:
    gate.provider("second", "gemini", base_url=upstream.origin)
    gate.model("gemini", "gemini", "second", capabilities=("chat",))
    used = {"promptTokenCount": 12, "candidatesTokenCount": 7, "totalTokenCount": 19}
    upstream.script(WHOLE, Answer(part_of_gemini(reason="MALFORMED_FUNCTION_CALL", usageMetadata=used)))
    assert ask(sdk).choices[0].message.content == "one two three"
    (event,) = gate.events()
    assert len(event.attempts) == 2 and event.attempts[0].cost_nano > 0


def test_a_quota_that_is_used_up_tells_when_to_come_back(sdk: openai.OpenAI, upstream: Upstream) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded.", "details": details}
    upstream.script(WHOLE, Answer({"error": error}, 429))
    with pytest.raises(openai.RateLimitError) as busy:
        ask(sdk)
    assert busy.value.response.headers["retry-after"] == "17"


LEAK = {"error": {"code": 500, "status": "INTERNAL", "message": "AIza-1 at http://10.1.2.3:8000 failed"}}
HALF = part_of_gemini({"text": "one "}, usageMetadata={"promptTokenCount": 12, "candidatesTokenCount": 1})
ILL: dict[str, Any] = {
    "cut": chunks_of_gemini(HALF, HALF, cut_after=1), "reset": chunks_of_gemini(HALF, HALF, cut_after=1, reset=True),
    "ended too early": chunks_of_gemini(HALF), "an error on its way": chunks_of_gemini(HALF, LEAK),
    "an error at once": chunks_of_gemini(LEAK), "an error with 200": Answer(LEAK), "an error in a list": Answer([LEAK], 500),
    "a page": Answer("<html>10.1.2.3</html>", content_type="text/html"), "nothing": Answer(b""), "silence": Hang(),
    "a stream that stops": chunks_of_gemini(HALF, HALF, hang_after=1),
}  # fmt: skip


@pytest.mark.parametrize("name", ILL)
@pytest.mark.parametrize("stream", [True, False])
def test_an_upstream_that_misbehaves_is_a_clean_error(
    client: Client, gate: Gate, upstream: Upstream, name: str, stream: bool
) -> None:
    upstream.script(STREAM if stream else WHOLE, ILL[name])
    reply = client("/v1/chat/completions", {"model": "gemini", "messages": MESSAGES, "stream": stream})
    assert not any(word in reply.body.decode() for word in INTERNAL), reply.body
    (event,) = gate.events()
    assert event.outcome == "error"
    if reply.status == 200:
        last = json.loads(reply.body.split(b"data: ")[-1])
        assert stream and last["error"]["message"] and event.estimated and event.cost_nano > 0
    else:
        assert reply.status in (502, 504) and reply.json["error"]["message"] and event.cost_nano == 0


def test_a_stream_that_is_whole_does_not_wait_for_its_connection(sdk: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(STREAM, lambda body: generated(body, stream=True, after=stay_open))
    assert list(ask(sdk, stream=True))[-1].choices[0].finish_reason == "stop"


def mutated(chance: random.Random) -> dict[str, Any]:
    """A body with fields, tools and parts of tools that nobody knows."""
    made = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look_up", "arguments": chance.choice(("{}", "", "nonsense", "[1]"))},
    }
    body: dict[str, Any] = json.loads(json.dumps({
        "model": "gemini", "tools": TOOLS, "stream": chance.random() < 0.5,
        "messages": [{"role": "system", "content": "Be brief."}, *MESSAGES, {"role": "assistant", "tool_calls": [made]},
                     {"role": "tool", "tool_call_id": "call_1", "content": "x"}, *MESSAGES],
    }))  # fmt: skip
    for _ in range(chance.randrange(1, 6)):
        field = f"field_{chance.randrange(10**6)}"
        match chance.randrange(6):
            case 0:
                body[field] = chance.choice(ODD)
            case 1:
                body["tools"].append({"type": field, field: chance.choice(ODD)})
            case 2:
                body["tools"][0]["function"][chance.choice((field, "description", "strict", "parameters"))] = (
                    chance.choice(ODD)
                )
            case 3:
                chance.choice(body["messages"])[field] = chance.choice(ODD)
            case 4:
                body["messages"][2]["tool_calls"][0][chance.choice((field, "extra_content"))] = chance.choice(ODD)
            case 5:
                body["messages"][2][chance.choice(("extra_content", "reasoning_content", "thinking_blocks"))] = (
                    chance.choice(ODD)
                )
    return body


def test_nothing_is_refused_because_it_is_not_known(client: Client) -> None:
    chance = random.Random(19)
    for _ in range(300):
        body = mutated(chance)
        reply = client("/v1/chat/completions", body)
        assert reply.status == 200, (reply.body, body)
