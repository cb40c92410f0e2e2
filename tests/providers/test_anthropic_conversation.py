"""Anthropic's format and the neutral language say the same, and models are asked for what they take."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.dialects import dialect
from app.providers.anthropic_conversation import body_of, events_of_delta, part_of, traits_of
from app.providers.base import UpstreamRequest
from app.providers.conversation import Conversation, Media, Reasoning, Schema, Text, Tool, ToolCall, ToolResult, Turn
from app.providers.openai_conversation import members_of
from tests.providers.test_openai import values

OLD, BETWEEN, NEW = "claude-sonnet-4-5-20250929", "claude-opus-4-6", "claude-opus-5"

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
names = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
texts = st.builds(Text, words)
pictures = st.builds(Media, st.just("image"), url=st.just("https://host.example/a.png")) | st.builds(
    Media, st.just("image"), data=st.just("QUJD"), media_type=st.just("image/png")
)
files = st.builds(Media, st.just("document"), data=st.just("QUJD"), media_type=st.just("application/pdf"))
results = st.builds(ToolResult, names, st.lists(texts | pictures, min_size=1, max_size=2).map(tuple), st.booleans())
thoughts = st.builds(Reasoning, words, words) | st.builds(Reasoning, st.just(""), words, st.just(True))
calls = st.builds(ToolCall, names, names, st.sampled_from(["{}", '{"a":1}', '{"a":{"b":["c"]}}']))


def of_lists(*lists: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*lists).map(lambda found: tuple(part for parts in found for part in parts)).filter(bool)


asked = of_lists(st.lists(results, max_size=2), st.lists(texts | pictures | files, max_size=2))
answered = of_lists(st.lists(thoughts, max_size=2), st.lists(texts, max_size=2), st.lists(calls, max_size=2))
turns = st.lists(st.tuples(asked, answered), min_size=1, max_size=3).map(
    lambda pairs: tuple(
        Turn(role, parts) for pair in pairs for role, parts in zip(("user", "assistant"), pair, strict=True)
    )  # type: ignore[arg-type]
)
tools = st.builds(
    Tool, names, st.none() | words, st.just({"type": "object", "properties": {"a": {"type": "string"}}}),
    st.none() | st.booleans(),
)  # fmt: skip
conversations = st.builds(
    lambda system, turns, tools, choice, **more: Conversation(
        turns=(*([Turn("system", system)] if system else []), *turns),
        tools=tuple(tools),
        choice=tools[0].name if choice == "named" and tools else choice if choice != "named" and tools else None,
        **more,
    ),
    st.lists(texts, max_size=2).map(tuple),
    turns,
    st.lists(tools, max_size=2),
    st.sampled_from([None, "auto", "none", "required", "named"]),
    stop=st.lists(words, max_size=2).map(tuple),
    temperature=st.sampled_from([None, 0.0, 0.5]),
    user=st.none() | names,
    effort=st.sampled_from([None, "none", "low", "medium", "high", "xhigh", "max"]),
    schema=st.none() | st.just(Schema({"type": "object"})),
)


def request(body: dict[str, Any], name: str = "anthropic_messages") -> UpstreamRequest:
    spoken = dialect(name)
    read = spoken.read(json.dumps({"model": "m"} | body).encode())
    return UpstreamRequest(
        capability="chat", dialect=spoken.name, model="m", members=read.members, parsed=read.checked,
        stream=bool(read.checked.stream), translate=spoken.conversation,
    )  # fmt: skip


PLAIN = request({"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]})


def written(conversation: Conversation, model: str = NEW, limit: int = 32_000) -> dict[str, Any]:
    return body_of(PLAIN, conversation, model, limit)


@given(conversations)
def test_a_conversation_that_is_written_is_read_as_the_same(conversation: Conversation) -> None:
    back = request(written(conversation, BETWEEN)).conversation()
    expected = conversation
    if conversation.effort not in (None, "none"):
        expected = _with(expected, temperature=None)  # a model that thinks takes none
    if conversation.effort in ("xhigh", "max"):
        expected = _with(expected, effort="high")
    if conversation.effort == "none":
        expected = _with(expected, temperature=None)
    assert back == expected


@given(conversations)
def test_what_one_dialect_says_is_not_lost_on_the_way_through_the_other(conversation: Conversation) -> None:
    """From a body of Anthropic's to one of OpenAI's and back."""
    conversation = _with(conversation, temperature=None, turns=tuple(map(_without_secrets, conversation.turns)))
    conversation = _with(conversation, turns=tuple(turn for turn in conversation.turns if turn.parts))
    if not conversation.turns:
        return
    once = request(written(conversation)).conversation()
    there = members_of(once, stream=False, can_reason=True, hears_thoughts=True)
    back = request({name: json.loads(value) for name, value in there.items()}, "openai_chat").conversation()
    assert written(back) == written(once)


def _without_secrets(turn: Turn) -> Turn:
    """Without what OpenAI's dialect has no word for: signed thoughts, and pictures within results and failures of tools."""
    parts = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            part = ToolResult(
                part.id, tuple(inner for inner in part.parts if isinstance(inner, Text))[:1] or (Text("-"),)
            )
        if not isinstance(part, Reasoning):
            parts.append(part)
    return Turn(turn.role, tuple(parts))


def _with(conversation: Conversation, **more: Any) -> Conversation:
    fields = {name: getattr(conversation, name) for name in conversation.__struct_fields__}
    return Conversation(**(fields | more))


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "level"),
    [
        (NEW, None, None, None),
        (NEW, "none", {"type": "disabled"}, None),
        (NEW, "minimal", {"type": "adaptive", "display": "summarized"}, "low"),
        (NEW, "max", {"type": "adaptive", "display": "summarized"}, "max"),
        (BETWEEN, "xhigh", {"type": "adaptive", "display": "summarized"}, "high"),
        (OLD, "none", None, None),
        (OLD, "minimal", {"type": "enabled", "budget_tokens": 1024}, None),
        (OLD, "medium", {"type": "enabled", "budget_tokens": 8192}, None),
        (OLD, "max", {"type": "enabled", "budget_tokens": 31_999}, None),
    ],
)
def test_an_effort_is_asked_for_in_the_way_of_the_model(
    model: str, effort: str | None, thinking: Any, level: str | None
) -> None:
    body = written(Conversation(turns=(Turn("user", (Text("hi"),)),), effort=effort), model)
    assert (body.get("thinking"), body.get("output_config", {}).get("effort")) == (thinking, level)


def test_an_old_model_does_not_think_where_it_would_be_refused() -> None:
    hi = Turn("user", (Text("hi"),))
    asked = Conversation(turns=(hi,), effort="high")
    assert "thinking" not in written(asked, OLD, 1024), "no room"
    assert written(asked, OLD, 1025)["thinking"]["budget_tokens"] == 1024
    forced = _with(asked, tools=(Tool("f", None, {}),), choice="required")
    assert "thinking" not in written(forced, OLD), "a tool is forced"
    called = (hi, Turn("assistant", (ToolCall("1", "f", "{}"),)), Turn("user", (ToolResult("1", (Text("x"),)),)))
    assert "thinking" not in written(_with(asked, turns=called), OLD), "the thoughts before the call are gone"


@pytest.mark.parametrize(
    ("model", "adapts", "samples"),
    [
        ("claude-3-5-sonnet-20241022", False, True), ("claude-2.1", False, True), ("claude-opus-4-20250514", False, True),
        ("claude-opus-4-1", False, True), ("anthropic.claude-sonnet-4-5-v1:0", False, True), (BETWEEN, True, True),
        ("claude-opus-4-7", True, False), ("claude-opus-4-10", True, False), (NEW, True, False), ("claude-fable-5", True, False),
    ],
)  # fmt: skip
def test_models_are_known_by_their_names(model: str, adapts: bool, samples: bool) -> None:
    assert (traits_of(model).adapts, traits_of(model).samples) == (adapts, samples)


def test_sampling_goes_only_to_models_that_take_it() -> None:
    asked = Conversation(turns=(Turn("user", (Text("hi"),)),), temperature=1.5, top_p=0.5)
    assert not {"temperature", "top_p"} & written(asked, NEW).keys()
    body = written(asked, OLD)
    assert body["temperature"] == 1 and "top_p" not in body


def test_turns_of_one_side_are_one_message_with_results_first() -> None:
    body = written(
        Conversation(
            turns=(
                Turn("user", (Text("go"),)),
                Turn("assistant", (ToolCall("call.1", "f", '{"a":1}'), ToolCall("call.2", "f", "nonsense"))),
                Turn("user", (Text("wait"),)),
                Turn("user", (ToolResult("call.1", (Text("1"),)),)),
                Turn("user", (ToolResult("call.2", (Text(""),), is_error=True),)),
            )
        )
    )
    _, called, told = body["messages"]
    assert [block["input"] for block in called["content"]] == [{"a": 1}, {}]
    assert [block["id"] for block in called["content"]] == ["call_1", "call_2"]
    assert [block.get("tool_use_id") for block in told["content"]] == ["call_1", "call_2", None]
    assert told["content"][1] == {"type": "tool_result", "tool_use_id": "call_2", "content": [], "is_error": True}


@given(values, values)
def test_no_block_is_too_odd_to_be_read(block: Any, inner: Any) -> None:
    for kind in ("text", "tool_use", "thinking", "redacted_thinking", "new"):
        part_of(block)
        part_of({"type": kind, "text": inner, "id": inner, "name": inner, "input": inner, "thinking": inner})
    for kind in ("text_delta", "thinking_delta", "signature_delta", "input_json_delta", "new"):
        list(events_of_delta({"type": kind, "text": inner, "partial_json": inner}, 0, lambda _, text: text))
