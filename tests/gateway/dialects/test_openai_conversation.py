"""A chat in the neutral language: what can be said in it is, and what would change the meaning if left out is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.dialects.openai_conversation import answer_of, chunks_of
from app.gateway.errors import ApiError
from app.providers.base import Exchange, Usage
from app.providers.conversation import (
    Conversation,
    Finish,
    Media,
    Reasoning,
    Reply,
    Silence,
    Text,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Turn,
)
from tests.gateway.dialects.calls import asked, chat

EMPTY = {"type": "object", "properties": {}}


def read(body: dict[str, Any]) -> Conversation:
    return asked(body).request.conversation()


def said(*messages: dict[str, Any]) -> tuple[Turn, ...]:
    return read({"model": "small", "messages": list(messages)}).turns


def test_every_role_and_part_has_its_place() -> None:
    turns = said(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            {"type": "image_url", "image_url": "data:image/png;base64,QUJD"},
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD"}},
        ]},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
            {"type": "function", "function": {"name": "wait"}},
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "a cat"},
    )  # fmt: skip
    assert turns == (
        Turn("system", (Text("Be brief."),)),
        Turn("user", (
            Text("What?"), Media("image", url="https://x.test/a.png"), Media("image", data="QUJD", media_type="image/png"),
            Media("audio", data="QUJD", media_type="audio/wav"), Media("document", data="QUJD", media_type="application/pdf"),
        )),
        Turn("assistant", (ToolCall("1", "look", '{"a":1}'), ToolCall("", "wait", "{}"))),
        Turn("user", (ToolResult("1", (Text("a cat"),)),)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "description": 5, "parameters": []}}]},
         {"tools": (Tool("f", None, EMPTY),)}),
        ({"tool_choice": "required"}, {"choice": "required"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"choice": "f"}),
        ({"tool_choice": {"type": "auto"}}, {"choice": None}),
        ({"parallel_tool_calls": False}, {"parallel_calls": False}),
        ({"stop": "x"}, {"stop": ("x",)}), ({"stop": ["x", "y"]}, {"stop": ("x", "y")}),
        ({"temperature": 0.5, "top_p": 1, "user": "ada"}, {"temperature": 0.5, "top_p": 1, "user": "ada"}),
        ({"n": 1, "logprobs": False, "response_format": {"type": "text"}}, {}),
    ],
)  # fmt: skip
def test_what_steers_an_answer_is_said(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read(chat(**fields)) == Conversation(turns=(Turn("user", (Text("hi"),)),), **expected)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"), ({"best_of": 2}, "best_of"), ({"logprobs": True}, "logprobs"), ({"top_logprobs": 1}, "top_logprobs"),
        ({"functions": [{"name": "f"}]}, "functions"), ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file_data"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls[0].function"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_by_its_place(fields: dict[str, Any], param: str) -> None:
    call = asked(chat() | fields)  # it is a good request, to an upstream of the same dialect
    with pytest.raises(ApiError) as refused:
        call.request.conversation()
    assert (refused.value.status, refused.value.param) == (400, param)


PARTS = st.lists(
    st.builds(Text, st.text(max_size=8))
    | st.builds(Reasoning, st.text(max_size=8))
    | st.builds(ToolCall, st.text(max_size=8), st.text(max_size=8), st.just("{}")),
    max_size=6,
).map(tuple)


@given(PARTS, st.sampled_from(["stop", "length", "tool_calls", "content_filter"]), st.integers(0, 9), st.integers(0, 9))
def test_an_answer_tells_everything_that_the_reply_has(parts: Any, finish: Any, prompt: int, cached: int) -> None:
    call = asked(chat())
    reply = Reply(parts=parts, finish=finish)
    told = json.loads(answer_of(call.request, reply, Usage(prompt, cached, 3)))
    (choice,) = told["choices"]
    message = choice["message"]
    texts = [part.text for part in parts if isinstance(part, Text)]
    thoughts = [part.text for part in parts if isinstance(part, Reasoning)]
    calls = [(part.id, part.name) for part in parts if isinstance(part, ToolCall)]
    assert message["content"] == ("".join(texts) if texts else None)
    assert message.get("reasoning_content", "") == "".join(thoughts)
    assert [(one["id"], one["function"]["name"]) for one in message.get("tool_calls", ())] == calls
    assert (told["model"], choice["finish_reason"], told["object"]) == ("small", finish, "chat.completion")
    usage = {"prompt_tokens": prompt, "completion_tokens": 3, "total_tokens": prompt + 3}
    assert told["usage"] == usage | ({"prompt_tokens_details": {"cached_tokens": cached}} if cached else {})


@pytest.mark.parametrize("wants_usage", [False, True])
def test_a_stream_tells_each_event_as_it_comes_and_its_usage_if_asked(wants_usage: bool) -> None:
    events = [
        Reasoning("hm"), Text("So"), ToolCallDelta(0, "1", "look", ""), ToolCallDelta(0, arguments="{}"),
        Finish("tool_calls"),
    ]  # fmt: skip
    exchange = SimpleNamespace(neutral_events=lambda: iter(events), conclude=lambda: Usage(2, 0, 3))
    call = asked(chat(stream=True, stream_options={"include_usage": wants_usage}))
    pieces = list(chunks_of(call.request, cast(Exchange, exchange)))
    assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for piece in pieces)
    chunks = [json.loads(event[6:]) for piece in pieces for event in piece.split(b"\n\n") if event]
    assert len(pieces) == len(chunks)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    if wants_usage:
        last = chunks.pop()
        assert last["choices"] == []
        assert last["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in chunks] == [
        ({"role": "assistant", "content": ""}, None), ({"reasoning_content": "hm"}, None), ({"content": "So"}, None),
        ({"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "look", "arguments": ""}}]}, None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}, None), ({}, "tool_calls"),
    ]  # fmt: skip


def test_a_silence_gives_a_sign_of_life_and_an_upstream_without_an_answer_no_chunk() -> None:
    def told(*events: Any) -> list[bytes]:
        exchange = SimpleNamespace(neutral_events=lambda: iter(events))
        return list(chunks_of(asked(chat(stream=True)).request, cast(Exchange, exchange)))

    opening, silent, said = told(Silence(), Text("So"))
    assert b'"assistant"' in opening and silent == b": keep-alive\n\n"
    assert said.count(b"data: ") == 1 and b'"So"' in said
    assert told() == []
