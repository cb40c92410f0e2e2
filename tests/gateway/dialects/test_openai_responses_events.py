"""Answers of other upstreams, written as OpenAI's Responses: whole and as the events that clients want."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast, get_args

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

from app.gateway import dialects
from app.gateway.endpoints import RESPONSES
from app.providers.anthropic import AnthropicExchange
from app.providers.base import Usage, all_of
from app.providers.conversation import Finish, Reasoning, Reply, Silence, Text, ToolCall, ToolCallDelta
from bench.answers import Canned
from tests.gateway.conftest import Call
from tests.gateway.dialects.calls import asked
from tests.services.gate import Gate
from tests.services.upstream import Upstream, chat, events_of, message, messages, responses

DIALECT = dialects.dialect("openai_responses")
TOOLS = [
    {"type": "function", "name": "look_up", "parameters": {"type": "object"}},
    {"type": "custom", "name": "apply_patch"},
    {"type": "namespace", "name": "files", "description": "Files.",
     "tools": [{"type": "function", "name": "read", "parameters": {}}]},
]  # fmt: skip
KINDS: dict[str, Any] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}  # the client's own types, by the name of the event


def events_in(stream: bytes) -> list[dict[str, Any]]:
    found = []
    for event in stream.decode().split("\n\n"):
        if event:
            name, data = event.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    return found


def request(**more: Any) -> Any:
    return asked({"model": "small", "input": "hi", "tools": TOOLS, **more}, endpoint=RESPONSES).request


def told(*events: Any, **more: Any) -> list[dict[str, Any]]:
    """The events of a stream; that they are numbered and that OpenAI's own client takes them all is looked at."""
    exchange = SimpleNamespace(
        neutral_events=lambda: iter(events), conclude=lambda: Usage(9, 2, 3, {"reasoning_tokens": 1})
    )
    *pieces, last = all_of(DIALECT.events(request(**more), cast(Any, exchange)))
    assert b"event: response.completed" not in b"".join(pieces)  # it leaves once the call is settled
    found = events_in(b"".join([*pieces, last]))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    state: Any = ResponseStreamState(input_tools=[], text_format=openai.omit)
    for event in found:
        state.handle_event(KINDS[event["type"]].model_validate(event))
    return found


def output(*events: Any, **more: Any) -> list[dict[str, Any]]:
    found = told(*events, **more)
    last: dict[str, Any] = found[-1]["response"]
    done = {event["output_index"]: event["item"] for event in found if event["type"] == "response.output_item.done"}
    added = [event["output_index"] for event in found if event["type"] == "response.output_item.added"]
    assert added == sorted(done) == list(range(len(done)))
    assert [done[index] for index in sorted(done)] == last["output"]
    return cast("list[dict[str, Any]]", last["output"])


def test_a_thought_a_text_and_parallel_calls_come_in_the_order_that_clients_want() -> None:
    found = told(
        Reasoning("h"), Reasoning("m"), Reasoning("", "sig"), Text("On"), Text("e"), ToolCallDelta(0, "c0", "look_up", '{"x"'),
        ToolCallDelta(1, "c1", "files__read"), ToolCallDelta(0, arguments=":1}"), ToolCallDelta(1, arguments="{}"),
        Finish("tool_calls"),
    )  # fmt: skip
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created", "in_progress",
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "output_item.added",
        "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    thought, said, *calls = found[-1]["response"]["output"]
    assert (thought["summary"], thought["encrypted_content"]) == (
        [{"type": "summary_text", "text": "hm"}],
        "portico:sig",
    )
    assert (said["content"][0]["text"], said["status"]) == ("One", "completed")
    assert [(call["call_id"], call["name"], call.get("namespace"), call["arguments"]) for call in calls] == [
        ("c0", "look_up", None, '{"x":1}'), ("c1", "read", "files", "{}"),
    ]  # fmt: skip


def test_the_text_for_a_tool_that_takes_any_is_unwrapped() -> None:
    for arguments, text in (
        ('{"input":"a\\nb"}', "a\nb"),
        ("not json", "not json"),
        ('"a"', "a"),
        ('{"x":1}', '{"x":1}'),
    ):
        pieces = [ToolCallDelta(0, "c", "apply_patch"), *(ToolCallDelta(0, arguments=one) for one in arguments)]
        found = told(*pieces, Finish("tool_calls"))
        (item,) = found[-1]["response"]["output"]
        assert (item["type"], item["input"]) == ("custom_tool_call", text)
        assert [event["type"].rpartition(".")[2] for event in found[2:-1]] == ["added", "delta", "done", "done"]


def test_thoughts_that_are_hidden_and_calls_with_odd_ids_are_items_too() -> None:
    items = output(
        Reasoning("", "data", redacted=True), Text("a"), ToolCallDelta(3, None, "look_up"),
        ToolCallDelta(4, "c", "look_up", "{}"), ToolCallDelta(5, "c", None, "{}"), Text("b"), Finish("stop"),
    )  # fmt: skip
    assert [item["type"] for item in items] == ["reasoning", "message", *["function_call"] * 3, "message"]
    assert items[0]["encrypted_content"] == "portico:redacted:data"
    assert len({item["call_id"] for item in items[2:5]}) == 3 and items[2]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("reason", "limit", "status", "details"),
    [
        ("stop", None, "completed", None), ("tool_calls", 50, "completed", None),
        ("length", 50, "incomplete", {"reason": "max_output_tokens"}),
        ("length", None, "completed", {"reason": "max_output_tokens"}),
        ("content_filter", None, "incomplete", {"reason": "content_filter"}),
    ],
)  # fmt: skip
def test_why_an_answer_ended_is_told(reason: Any, limit: int | None, status: str, details: Any) -> None:
    more = {} if limit is None else {"max_output_tokens": limit}
    last = told(Text("a"), Finish(reason), **more)[-1]
    assert last["type"] == f"response.{status}"
    assert (last["response"]["status"], last["response"]["incomplete_details"]) == (status, details)
    reply = Reply(parts=(Text("a"),), finish=reason)
    exchange = SimpleNamespace(reply=lambda: reply, conclude=lambda: Usage(9, 2, 3))
    whole = json.loads(DIALECT.answer(request(**more), cast(Any, exchange)))
    assert (whole["status"], whole["incomplete_details"]) == (status, details)


def test_signatures_of_calls_and_texts_come_back_in_their_places() -> None:
    said = (
        ToolCallDelta(0, "c0", "look_up", "{}", "one"),
        ToolCallDelta(1, "c1", "look_up", "{}"),
        Text("Hi", "two"),
        Text("", "three"),
    )
    items = output(*said, Finish("stop"))
    (turn,) = asked({"model": "small", "input": items, "tools": TOOLS}, endpoint=RESPONSES).request.conversation().turns
    assert turn.parts == (
        ToolCall("c0", "look_up", "{}", "one"), ToolCall("c1", "look_up", "{}"), Text("Hi", "two"), Text("", "three"),
    )  # fmt: skip


def test_usage_is_told_with_every_figure() -> None:
    usage = told(Finish("stop"))[-1]["response"]["usage"]
    assert usage == {
        "input_tokens": 9, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0}, "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 12,
    }  # fmt: skip


def test_what_was_asked_is_repeated_unless_it_is_long() -> None:
    asks = {
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "instructions": "x" * 5000,
        "tool_choice": "required",
        "service_tier": "flex",
    }
    response = told(Finish("stop"), **asks)[0]["response"]
    assert (response["metadata"], response["temperature"], response["tool_choice"]) == ({"a": "b"}, 0.5, "required")
    assert (response["instructions"], response["tools"], response["store"]) == (None, TOOLS, False)
    assert "service_tier" not in response, "who serves it tells that"


def test_a_silence_is_an_event_that_changes_nothing() -> None:
    found = told(Text("a"), Silence(), Text("b"), Finish("stop"))
    assert [event["type"] for event in found][4:7] == [
        "response.output_text.delta", "response.in_progress", "response.output_text.delta",
    ]  # fmt: skip
    assert found[5]["response"]["id"] == found[0]["response"]["id"] and len(json.dumps(found[5])) < 500


@pytest.mark.parametrize("keep_alive_s", [0.05])
@pytest.mark.parametrize("model", ["small", "claude", "gpt"])
def test_a_stream_that_is_silent_lives(call: Call, gate: Gate, upstream: Upstream, model: str) -> None:
    gate.provider("shaped", base_url=upstream.url, timeout_s=1)
    gate.provider("anthropic", "anthropic", base_url=upstream.origin, timeout_s=1)
    gate.provider("openai", "openai", base_url=upstream.url, timeout_s=1)
    gate.model("gpt", "openai", capabilities=("chat",))
    upstream.script("/v1/messages", lambda request: messages(request, delay_s=0.3))
    upstream.script("/v1/chat/completions", lambda request: chat(request, delay_s=0.3))
    upstream.script("/v1/responses", lambda request: responses(request, delay_s=0.3))
    stream = call(RESPONSES, {"model": model, "input": "one two", "stream": True})
    found = events_in(stream)
    assert b": keep-alive" not in stream and found[-1]["type"] == "response.completed"
    alive = [event for event in found[2:] if event["type"] == "response.in_progress"]
    assert len(alive) >= 3 and {event["response"]["id"] for event in alive} == {found[0]["response"]["id"]}
    assert found[0]["type"] == "response.created"
    text = "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta")
    assert text.split() == ["one", "two"] and gate.events()[0].completion_tokens == 2


pieces = st.one_of(
    st.builds(Text, st.text(max_size=5)),
    st.builds(Reasoning, st.text(max_size=5), st.none() | st.just("s")),
    st.builds(lambda: Reasoning("", "d", redacted=True)),
    st.builds(ToolCallDelta, st.integers(0, 3), st.none() | st.sampled_from("ab"),
              st.sampled_from(["look_up", "apply_patch", "files__read", "odd"]), st.text(max_size=5)),
    st.builds(Silence),
)  # fmt: skip


@given(st.lists(pieces, max_size=12), st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
def test_whatever_an_upstream_says_is_a_stream_that_the_client_takes(said: list[Any], reason: Any) -> None:
    items = output(*said, Finish(reason))
    text = "".join(part.text for part in said if isinstance(part, Text))
    assert "".join(item["content"][0]["text"] for item in items if item["type"] == "message") == text
    calls = {part.index for part in said if isinstance(part, ToolCallDelta)}
    assert len([item for item in items if item["type"].endswith("call")]) == len(calls)


@given(st.lists(st.builds(Text, st.text(min_size=1, max_size=5)) | st.builds(ToolCall, st.sampled_from("abc"),
                st.sampled_from(["look_up", "apply_patch", "files__read"]), st.just("{}")), max_size=6))  # fmt: skip
def test_an_answer_is_the_same_whole_as_streamed(parts: list[Any]) -> None:
    exchange = SimpleNamespace(reply=lambda: Reply(parts=tuple(parts), finish="stop"), conclude=lambda: Usage(9, 2, 3))
    whole = json.loads(DIALECT.answer(request(), cast(Any, exchange)))
    events = [ToolCallDelta(at, part.id, part.name, part.arguments) if isinstance(part, ToolCall) else part
              for at, part in enumerate(parts)]  # fmt: skip
    streamed = told(*events, Finish("stop"))[-1]["response"]
    for one in (whole, streamed):
        for item in one["output"]:
            item.pop("id")
            if "call_id" in item:
                item.pop("call_id")
    assert whole["output"] == streamed["output"]


@given(st.lists(st.integers(1, 400), max_size=12))
def test_any_split_of_an_upstream_s_bytes_gives_the_same_events(cuts: list[int]) -> None:
    stream = b"".join(events_of(
        {"type": "message_start", "message": message()},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hmé"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi \U0001f600"}},
        {"type": "content_block_start", "index": 2,
         "content_block": {"type": "tool_use", "id": "t1", "name": "look_up", "input": {}}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 8}},
        {"type": "message_stop"},
    ).chunks)  # fmt: skip

    def read(pieces: list[bytes]) -> list[dict[str, Any]]:
        made = request()
        events = list(AnthropicExchange(cast(Any, Canned(pieces)), made, None, 60.0).neutral_events())
        found = told(*events)
        return [
            {name: value for name, value in event.items() if name not in ("response", "item", "item_id")}
            for event in found
        ]

    places = sorted({0, len(stream), *(sum(cuts[: at + 1]) % len(stream) for at in range(len(cuts)))})
    split = [stream[start:end] for start, end in pairwise(places)]
    assert read(split) == read([stream])
