"""OpenAI's format and the neutral language say the same: what is written can be read, and odd answers are read as far as
they can be."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.dialects import dialect
from app.providers.base import UpstreamRequest
from app.providers.conversation import (
    Conversation,
    Finish,
    Media,
    Reasoning,
    Schema,
    Text,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Turn,
)  # fmt: skip
from app.providers.openai_conversation import events_of, members_of, reply_of
from tests.providers.test_openai import values

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
texts = st.builds(Text, words)
pictures = st.builds(Media, st.just("image"), url=st.just("https://host.example/a.png")) | st.builds(
    Media, st.just("image"), data=st.just("QUJD"), media_type=st.just("image/png")
)
sounds = st.builds(
    Media, st.just("audio"), data=st.just("QUJD"), media_type=st.sampled_from(["audio/wav", "audio/mp3"])
)
files = st.builds(Media, st.just("document"), data=st.just("QUJD"), media_type=st.just("application/pdf"))
calls = st.builds(ToolCall, words, words, st.just('{"a":1}'))


def turns_of(role: str, *parts: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[Turn]:
    return st.builds(Turn, st.just(role), st.lists(st.one_of(*parts), min_size=1, max_size=most).map(tuple))


said = st.builds(
    lambda text, called: Turn("assistant", (*text, *called)),
    st.lists(texts, max_size=2), st.lists(calls, min_size=1, max_size=3),
) | st.builds(lambda thought, text: Turn("assistant", (Reasoning(thought), text)), words, texts)  # fmt: skip
results = st.builds(lambda id, text: Turn("user", (ToolResult(id, (text,)),)), words, texts)
tools = st.builds(
    Tool, words, st.none() | words, st.just({"type": "object", "properties": {"a": {"type": "string"}}}),
    st.none() | st.booleans(),
)  # fmt: skip
schemas = st.builds(Schema, st.just({"type": "object"}), words, st.none() | st.booleans())
conversations = st.builds(
    Conversation,
    turns=st.lists(
        turns_of("system", texts) | turns_of("user", texts, pictures, sounds, files) | turns_of("assistant", texts)
        | said | results,
        min_size=1, max_size=5,
    ).map(tuple),
    tools=st.lists(tools, min_size=1, max_size=2).map(tuple),
    choice=st.sampled_from([None, "auto", "none", "required", "look_up"]),
    parallel_calls=st.sampled_from([None, True, False]),
    stop=st.lists(words, max_size=2).map(tuple),
    temperature=st.sampled_from([None, 0.0, 1.5]),
    top_p=st.sampled_from([None, 0.25]),
    user=st.none() | words,
    effort=st.sampled_from([None, "none", "low", "xhigh"]),
    schema=st.none() | schemas,
)  # fmt: skip


def read(members: dict[str, bytes]) -> Conversation:
    """What our own dialect reads in a request."""
    spoken = dialect("openai_chat")
    body = b",".join(b'"%s":%s' % (name.encode(), value) for name, value in members.items())
    asked = spoken.read(b'{"model":"m",%s}' % body)
    return spoken.conversation(
        UpstreamRequest(capability="chat", dialect=spoken.name, model="m", members=asked.members, parsed=asked.checked)
    )


@given(conversations)
def test_a_conversation_that_is_written_is_read_as_the_same(conversation: Conversation) -> None:
    assert read(members_of(conversation, stream=False, can_reason=True, hears_thoughts=True)) == conversation


def test_an_effort_goes_to_models_that_think_and_thoughts_to_upstreams_that_want_them() -> None:
    turn = Turn("assistant", (Reasoning("hm"), Text("hi")))
    members = members_of(Conversation(turns=(turn,), effort="high"), stream=False)
    assert "reasoning_effort" not in members and b"hm" not in members["messages"]


def test_a_picture_in_a_result_is_shown_behind_it() -> None:
    result = ToolResult("a", (Text("see"), Media("image", data="QUJD", media_type="image/png")))
    members = members_of(Conversation(turns=(Turn("user", (result, Text("and?"))),)), stream=False)
    told, shown = json.loads(members["messages"])
    assert told == {"role": "tool", "tool_call_id": "a", "content": "see"}
    assert [part["type"] for part in shown["content"]] == ["image_url", "text"]


def test_a_stream_is_asked_for_and_tools_that_are_not_there_are_not_chosen() -> None:
    asked = Conversation(turns=(Turn("user", (Text("hi"),)),), choice="auto", parallel_calls=True)
    assert set(members_of(asked, stream=True)) == {"messages", "stream"}


def test_results_come_before_what_else_was_said_and_errors_are_told() -> None:
    parts = (Text("and?"), ToolResult("a", (Text("one"), Text("two"))), ToolResult("b", (Text("no"),), is_error=True))
    members = members_of(Conversation(turns=(Turn("user", parts),)), stream=False)
    assert json.loads(members["messages"]) == [
        {"role": "tool", "tool_call_id": "a", "content": "onetwo"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: no"},
        {"role": "user", "content": "and?"},
    ]


def test_a_reply_has_its_thoughts_its_text_and_its_calls() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    message = {"reasoning": "hm", "content": "hi", "tool_calls": [call]}
    other = {"index": 1, "message": {"content": "another"}}
    answer = {"choices": [other, {"index": 0, "message": message, "finish_reason": "function_call"}]}
    reply = reply_of(json.dumps(answer).encode())
    assert reply.parts == (Reasoning("hm"), Text("hi"), ToolCall("c", "f", "{}"))
    assert reply.finish == "tool_calls"


def test_the_last_reason_finishes_a_stream_and_other_choices_are_left_out() -> None:
    def chunk(index: int, reason: str | None = None, **delta: Any) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": reason}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    called = [{"id": "c", "function": {"name": "f", "arguments": "{"}}, {"index": -1, "function": {"arguments": "}"}}]
    pieces = [chunk(0, content="a") + chunk(1, content="b"), chunk(0, tool_calls=called), chunk(0, "length"), chunk(0)]
    assert list(events_of(pieces)) == [
        Text("a"), ToolCallDelta(0, "c", "f", "{"), ToolCallDelta(1, arguments="}"), Finish("length"),
    ]  # fmt: skip


@given(st.dictionaries(st.sampled_from(["choices", "x"]), values | st.lists(values, max_size=2)), values)
def test_no_answer_is_too_odd_to_be_read(answer: dict[str, Any], message: Any) -> None:
    for value in (answer, {"choices": [{"message": message, "delta": message, "finish_reason": message}]}):
        try:
            body = json.dumps(value).encode()
        except ValueError:
            continue
        reply = reply_of(body)
        *_, last = events_of([b"data: " + body + b"\n\n"])
        assert isinstance(last, Finish) and reply.finish == last.reason
        assert msgspec.json.encode(reply.parts) is not None
