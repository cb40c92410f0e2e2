"""The official OpenAI client notices no difference but the address."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

MESSAGES = [{"role": "user", "content": "one two three"}]
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}

pytestmark = pytest.mark.both_lanes


def test_a_chat_is_answered_under_the_portals_name_for_the_model(sdk, upstream):
    answer = sdk.chat.completions.create(model="small", messages=MESSAGES)
    assert answer.choices[0].message.content == "one two three"
    assert answer.model == "small"
    assert upstream.last.json["model"] == "small-up"
    assert answer.usage.total_tokens == 6


def test_a_stream_comes_in_pieces_and_tells_usage_only_when_asked(sdk, upstream):
    plain = list(sdk.chat.completions.create(model="small", messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in plain).split() == ["one", "two", "three"]
    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    assert upstream.last.json["stream_options"] == {"include_usage": True}
    asked = list(
        sdk.chat.completions.create(
            model="small", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [chunk.usage.total_tokens for chunk in asked if chunk.usage] == [6]
    assert {chunk.model for chunk in asked} == {"small"}


@pytest.mark.parametrize("model", ["small", "echo-1"])
def test_tool_calls_pass_through_streamed_and_not(sdk, model):
    options = {"model": model, "messages": MESSAGES, "tools": [TOOL], "tool_choice": "required"}
    whole = sdk.chat.completions.create(**options).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.tool_calls[0].function.name == "weather"
    deltas = [
        call
        for chunk in sdk.chat.completions.create(**options, stream=True)
        for call in (chunk.choices[0].delta.tool_calls or ())
    ]
    assert deltas[0].index == 0
    assert deltas[0].function.name == "weather"


def test_unknown_fields_reach_the_upstream_and_the_gateways_own_do_not(sdk, upstream):
    sdk.chat.completions.create(
        model="small", messages=MESSAGES, extra_body={"repetition_penalty": 1.1, "provider": "up"}
    )
    assert upstream.last.json["repetition_penalty"] == 1.1
    assert "provider" not in upstream.last.json


@pytest.mark.parametrize("model", ["small", "echo-1"])
@pytest.mark.parametrize("given", ["a text", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
def test_embeddings_take_every_kind_of_input_in_floats_and_the_clients_own_base64(sdk, model, given):
    by_default = sdk.embeddings.create(model=model, input=given, dimensions=8)
    floats = sdk.embeddings.create(model=model, input=given, dimensions=8, encoding_format="float")
    assert by_default.model == model
    for one, other in zip(by_default.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(one.embedding) == 8


def test_models_are_listed_and_shown(sdk):
    assert [model.id for model in sdk.models.list()] == ["echo-1", "small"]
    assert sdk.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("other")


def test_the_async_client_streams_many_at_once(gate, key):
    async def one(client: openai.AsyncOpenAI, text: str) -> str:
        stream = await client.chat.completions.create(
            model="echo-1", messages=[{"role": "user", "content": text}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(api_key=key, base_url=f"{gate.url}/v1", max_retries=0) as client:
            return await asyncio.gather(*(one(client, f"text {number}") for number in range(20)))

    with ThreadPoolExecutor(1) as thread:  # in the test's own a browser may have its loop
        came = thread.submit(lambda: asyncio.run(all_of_them())).result()
    assert came == [f"text {number}" for number in range(20)]


def test_errors_arrive_as_the_clients_own_classes(gate, sdk, upstream):
    from tests.services.upstream import CHAT, failure

    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="sk-nonsense", base_url=sdk.base_url, max_retries=0).models.list()
    with pytest.raises(openai.BadRequestError) as bad:
        sdk.chat.completions.create(model="small", messages=MESSAGES, temperature=3)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.create(model="other", messages=MESSAGES)
    upstream.script(CHAT, failure(429, retry_after="7"))
    with pytest.raises(openai.RateLimitError) as busy:
        sdk.chat.completions.create(model="small", messages=MESSAGES)
    assert busy.value.response.headers["retry-after"] == "7"
    upstream.script(CHAT, failure(500))
    with pytest.raises(openai.InternalServerError):
        sdk.chat.completions.create(model="small", messages=MESSAGES)


def test_a_stream_cut_by_the_upstream_raises_in_the_client(sdk, upstream):
    from tests.services.upstream import CHAT, chat

    upstream.script(CHAT, lambda body: chat(body, cut_after=3))
    with pytest.raises(openai.APIError, match="cut off"):
        list(sdk.chat.completions.create(model="small", messages=MESSAGES, stream=True))
