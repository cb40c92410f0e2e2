"""Gemini as a provider: its address, its list, a try at it, vectors, signatures, and streams of any kind."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.directory import Deployment
from app.gateway.dialects import dialect
from app.providers.addresses import AddressPolicy
from app.providers.base import Exchange, UpstreamError, UpstreamRequest
from app.providers.conversation import ToolCall
from app.providers.gemini import Gemini, GeminiExchange, GeminiSettings
from app.providers.http import Answer as Heard
from app.providers.model_list import ListedModel
from app.providers.signatures import Signatures
from tests.providers.test_openai import Canned, values
from tests.services.upstream import Answer, Upstream, part_of_gemini

POLICY = AddressPolicy(allow_private=True)
UP = Deployment(id="d", provider_id="p", upstream_model="gemini-up")
LIST, AT = "/v1beta/models", "/v1beta/models/gemini-up"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture
def adapter(upstream: Upstream) -> Iterator[Gemini]:
    made = Gemini(GeminiSettings(base_url=upstream.origin, api_key="AIza-1"), policy=POLICY)
    yield made
    made.close()


def request(name: str = "openai_chat", capability: Any = "chat", **body: Any) -> UpstreamRequest:
    spoken = dialect(name)
    read = spoken.read(json.dumps({"model": "ours"} | body).encode())
    parsed: Any = read.checked
    return UpstreamRequest(
        capability=capability, dialect=name, model="ours", members=read.members, parsed=parsed,
        stream=bool(parsed.stream), translate=spoken.conversation,
    )  # fmt: skip


def chat(*more: dict[str, Any], **members: Any) -> UpstreamRequest:
    return request(messages=[{"role": "user", "content": "one two"}, *more], **members)


def answered(exchange: Exchange) -> Any:
    exchange.receive()
    reply = exchange.reply()
    exchange.close()
    return reply


def test_a_list_tells_names_limits_and_what_a_model_can_do(adapter: Gemini, upstream: Upstream) -> None:
    first = [
        {"name": "models/gemini-x", "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536, "thinking": True,
         "supportedGenerationMethods": ["generateContent", "countTokens", "batchGenerateContent"]},
        {"name": "models/veo", "supportedGenerationMethods": ["predictLongRunning"]},
        {"name": "models/odd", "supportedGenerationMethods": [3]}, "odd", {"name": 4}, {"name": "models/untold"},
    ]  # fmt: skip
    second = [{"name": "models/gemini-embedding", "inputTokenLimit": 2048, "outputTokenLimit": 1,
               "supportedGenerationMethods": ["embedContent"]}]  # fmt: skip
    upstream.script(LIST, Answer({"models": first, "nextPageToken": "a/b&c"}), Answer({"models": second}))
    assert adapter.list_models() == (
        ListedModel("gemini-x", 1_048_576, 65_536, "chat", ("reasoning",)),
        ListedModel("untold"),
        ListedModel("gemini-embedding", 2048, 1, "embeddings"),
    )
    assert upstream.last.path == f"{LIST}?pageSize=1000&pageToken=a%2Fb%26c"
    assert upstream.last.headers["x-goog-api-key"] == "AIza-1"
    assert "AIza" not in "".join(one.path for one in upstream.requests)
    upstream.script(LIST, Answer({}, 404))
    assert adapter.list_models() is None
    upstream.script(LIST, Answer([1]))
    with pytest.raises(UpstreamError, match="list of models"):
        adapter.list_models()


@pytest.mark.parametrize(
    ("path", "version", "place"),
    [
        ("", "v1beta", "/v1beta/models/gemini-up"), ("/", "v1", "/v1/models/gemini-up"),
        ("/v1beta", "v1", "/v1beta/models/gemini-up"), ("/proxy", "v1beta", "/proxy/v1beta/models/gemini-up"),
        ("/v1/publishers/google", "v1beta", "/v1/publishers/google/models/gemini-up"),
    ],
)  # fmt: skip
def test_an_address_may_have_a_version_of_its_own(upstream: Upstream, path: str, version: str, place: str) -> None:
    settings = GeminiSettings(base_url=upstream.origin + path, api_version=version)
    with contextlib.closing(Gemini(settings, policy=POLICY)) as made:
        answered(made.open(chat(), UP))
    assert upstream.last.path == f"{place}:generateContent"
    assert "x-goog-api-key" not in upstream.last.headers


def test_a_model_may_have_a_place_of_its_own(adapter: Gemini, upstream: Upstream) -> None:
    answered(adapter.open(chat(), Deployment(id="d", provider_id="p", upstream_model="tunedModels/mine é")))
    assert upstream.last.path == "/v1beta/tunedModels/mine%20%C3%A9:generateContent"


def test_a_try_asks_for_few_words_or_for_a_vector(adapter: Gemini, upstream: Upstream) -> None:
    told = adapter.check(model="gemini-up", prompt="Hello", parameters={"safetySettings": []})
    assert told.result == "ok"
    said = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    assert upstream.last.json == {"generationConfig": {"maxOutputTokens": 16}, "safetySettings": [], **said}
    refused = Answer({"error": {"code": 404, "message": "models/gemini-up is not found", "status": "NOT_FOUND"}}, 404)
    upstream.script(f"{AT}:generateContent", refused)
    assert adapter.check(model="gemini-up", prompt=None, parameters={}).result == "ok", "it gives vectors"
    upstream.script(f"{AT}:generateContent", refused)
    upstream.script(f"{AT}:batchEmbedContents", refused)
    assert adapter.check(model="gemini-up", prompt=None, parameters={}).result == "model_not_found"


def test_texts_become_vectors_a_hundred_at_a_time(adapter: Gemini, upstream: Upstream) -> None:
    asked = request(
        "openai_embeddings", "embeddings", input=["x" * n for n in range(1, 251)], type="query", dimensions=2
    )
    body = json.loads(adapter.open(asked, UP).body())
    assert [one["embedding"] for one in body["data"]] == [[n, 0.5] for n in range(1, 251)]
    assert [len(one.json["requests"]) for one in upstream.requests] == [100, 100, 50]
    assert upstream.last.json["requests"][0] == {
        "model": "models/gemini-up", "content": {"parts": [{"text": "x" * 201}]}, "taskType": "RETRIEVAL_QUERY",
        "outputDimensionality": 2,
    }  # fmt: skip
    asked = request("openai_embeddings", "embeddings", input="three", encoding_format="base64")
    (packed,) = json.loads(adapter.open(asked, UP).body())["data"]
    assert struct.unpack("<4f", base64.b64decode(packed["embedding"])) == (5, 0.5, 0.5, 0.5)
    with pytest.raises(UpstreamError, match="no tokens") as refused:
        adapter.open(request("openai_embeddings", "embeddings", input=[[1, 2]]), UP)
    assert refused.value.refused and refused.value.param == "input"


def test_tokens_are_counted_by_gemini(adapter: Gemini, upstream: Upstream) -> None:
    asked = request("anthropic_count_tokens", messages=[{"role": "user", "content": "hi"}], system="Be brief.")
    assert adapter.count_tokens(asked, UP) == 18
    assert upstream.last.json["generateContentRequest"] == {
        "model": "models/gemini-up", "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
    }  # fmt: skip


def test_a_signature_is_remembered_for_a_client_that_drops_it(adapter: Gemini, upstream: Upstream) -> None:
    (call,) = answered(adapter.open(chat(tools=[TOOL]), UP)).parts
    assert call == ToolCall("fc_0", "f", '{"text":"one two "}', "c2lnbmVk")
    kept = {"id": "fc_0", "type": "function", "function": {"name": "f", "arguments": call.arguments}}
    history = [{"role": "assistant", "tool_calls": [kept]}, {"role": "tool", "tool_call_id": "fc_0", "content": "42"}]
    answered(adapter.open(chat(*history), UP))
    assert upstream.last.json["contents"][1]["parts"][0]["thoughtSignature"] == "c2lnbmVk"


def test_signatures_of_another_account_are_taken_out_once(adapter: Gemini, upstream: Upstream) -> None:
    foreign = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"},
               "extra_content": {"google": {"thought_signature": "Zm9yZWlnbg=="}}}  # fmt: skip
    history = [{"role": "assistant", "tool_calls": [foreign]}, {"role": "tool", "tool_call_id": "x", "content": "42"}]
    corrupted = Answer(
        {"error": {"code": 400, "message": "Corrupted thought signature.", "status": "INVALID_ARGUMENT"}}, 400
    )
    upstream.script(f"{AT}:generateContent", corrupted)
    answered(adapter.open(chat(*history), UP))
    told = [one.json["contents"][1]["parts"][0]["thoughtSignature"] for one in upstream.requests]
    assert told == ["Zm9yZWlnbg==", "skip_thought_signature_validator"]
    upstream.script(f"{AT}:generateContent", corrupted, corrupted)
    with pytest.raises(UpstreamError, match="Corrupted thought signature") as refused:
        adapter.open(chat(*history), UP)
    assert refused.value.refused and len(upstream.requests) == 4


def test_what_other_candidates_say_is_not_heard(adapter: Gemini, upstream: Upstream) -> None:
    other = {"index": 1, "content": {"parts": [{"text": "Other."}]}, "finishReason": "SAFETY"}
    body = part_of_gemini({"text": "Hi."}, {"executableCode": {"code": "1"}}, reason="STOP")
    upstream.script(f"{AT}:generateContent", Answer(body | {"candidates": [other, *body["candidates"]]}))
    reply = answered(adapter.open(chat(), UP))
    assert ([part.text for part in reply.parts], reply.finish) == (["Hi."], "stop")


odd_part = values | st.fixed_dictionaries({}, optional={
    "text": values, "thought": values, "thoughtSignature": values,
    "functionCall": values | st.fixed_dictionaries({"name": values, "args": values}, optional={"id": values}),
})  # fmt: skip
odd = st.fixed_dictionaries({}, optional={
    "candidates": values | st.lists(values | st.fixed_dictionaries({}, optional={
        "content": values | st.fixed_dictionaries({"parts": values | st.lists(odd_part, max_size=3)}),
        "finishReason": values | st.sampled_from(["STOP", "MALFORMED_FUNCTION_CALL"]), "finishMessage": values, "index": values,
    }), max_size=2),
    "usageMetadata": values | st.fixed_dictionaries({"promptTokenCount": values, "candidatesTokenCount": values}),
    "promptFeedback": values | st.fixed_dictionaries({"blockReason": values}), "responseId": values, "error": values,
})  # fmt: skip


@given(st.lists(odd | values, max_size=5), st.booleans())
def test_any_answer_is_one_or_a_failure(chunks: list[Any], stream: bool) -> None:
    pieces = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks]
    if not stream:
        pieces = [json.dumps(chunks[0] if chunks else None).encode()]
    asked = UpstreamRequest(
        capability="chat", dialect="openai_chat", model="ours", members={}, parsed=None, stream=stream
    )
    exchange = GeminiExchange(cast(Heard, Canned(pieces)), asked, None, 60.0, Signatures())
    is_whole = False
    with contextlib.suppress(UpstreamError):
        if stream:
            told: list[Any] = list(exchange.neutral_events())
        else:
            exchange.receive()
            told = [exchange.reply()]
        is_whole = bool(told)
    assert is_whole is bool(exchange.finish_reason), "what is whole says why it ended"
    assert exchange.conclude().completion_tokens >= 0
