"""A request for a response, read into the neutral language."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway import metrics
from app.gateway.dialects.openai_responses_conversation import Known, tools_of
from app.gateway.endpoints import RESPONSES
from app.gateway.errors import ApiError
from app.providers.conversation import Conversation, Media, Reasoning, Schema, Text, ToolCall, ToolResult, Turn
from app.providers.openai_conversation import TAKES, members_of
from tests.gateway.dialects.calls import asked
from tests.gateway.dialects.calls import values as odd

FUNCTION = {
    "type": "function",
    "name": "look_up",
    "description": "Looks up.",
    "parameters": {"type": "object"},
    "strict": True,
}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Patches.",
         "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"}}  # fmt: skip
FILES = {"type": "namespace", "name": "mcp__files__", "tools": [FUNCTION, PATCH]}
SEARCH = {"type": "web_search"}


def read(input: Any = "hi", **more: Any) -> Conversation:
    return asked({"model": "small", "input": input, **more}, endpoint=RESPONSES).request.conversation()


def dropped(input: Any = "hi", **more: Any) -> set[str]:
    before = metrics._sums.copy()
    read(input, **more)
    return {labels[2] for labels in (metrics._sums - before) if labels[:2] == (metrics.DROPPED, "openai_responses")}


class TestItems:
    def test_a_text_is_a_question_and_instructions_come_first(self) -> None:
        assert read(instructions="Be brief.").turns == (
            Turn("system", (Text("Be brief."),)),
            Turn("user", (Text("hi"),)),
        )

    def test_what_the_assistant_did_without_a_break_is_one_turn_and_so_are_the_results(self) -> None:
        items = [
            {"role": "user", "content": "go"},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "phase": "commentary", "content": [{"type": "output_text", "text": "Now:"}]},
            {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": '{"a":1}'},
            {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": 'a "b"'},
            {"type": "function_call_output", "call_id": "c1", "output": "42"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "ok"}]},
            {"role": "user", "content": "one"}, {"role": "user", "content": "two"},
        ]  # fmt: skip
        assert read(items).turns == (
            Turn("user", (Text("go"),)),
            Turn("assistant", (Reasoning("hm"), Text("Now:"), ToolCall("c1", "look_up", '{"a":1}'),
                               ToolCall("c2", "apply_patch", '{"input":"a \\"b\\""}'))),
            Turn("user", (ToolResult("c1", (Text("42"),)), ToolResult("c2", (Text("ok"),)))),
            Turn("user", (Text("one"),)), Turn("user", (Text("two"),)),
        )  # fmt: skip

    def test_media_are_at_addresses_or_within(self) -> None:
        parts = [
            {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "auto"},
            {"type": "input_image", "image_url": "data:image/png;base64,QUJD"},
            {"type": "input_file", "file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"},
            {"type": "input_file", "file_data": "QUJD"},
            {"type": "input_file", "file_url": "https://x.test/a.pdf"},
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        ]
        assert read([{"role": "user", "content": parts}]).turns[0].parts == (
            Media("image", url="https://x.test/a.png"), Media("image", data="QUJD", media_type="image/png"),
            Media("document", data="QUJD", media_type="application/pdf"),
            Media("document", data="QUJD", media_type="application/pdf"), Media("document", url="https://x.test/a.pdf"),
            Media("audio", data="QUJD", media_type="audio/mp3"),
        )  # fmt: skip

    def test_a_thought_has_the_signature_of_the_upstream_that_signed_it_and_no_other(self) -> None:
        summary = [{"type": "summary_text", "text": "hm"}]
        for sealed, part in (
            ("portico:sig", Reasoning("hm", "sig")),
            ("portico:redacted:data", Reasoning("", "data", redacted=True)),
            ("gAAAA", Reasoning("hm")),
        ):
            items = [{"type": "reasoning", "summary": summary, "encrypted_content": sealed}]
            assert read(items).turns == (Turn("assistant", (part,)),)
        hidden = {"type": "reasoning", "summary": [], "encrypted_content": "portico:sig"}
        assert read([hidden]).turns[0].parts == (Reasoning("", "sig"),)
        raw = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]}
        assert read([raw]).turns[0].parts == (Reasoning("so"),)

    def test_what_stands_elsewhere_is_named(self) -> None:
        with pytest.raises(ApiError) as refused:
            read([{"type": "item_reference", "id": "msg_1"}])
        assert (refused.value.status, refused.value.param) == (400, "input[0]")


class TestTools:
    def test_become_functions_whose_names_lead_back(self) -> None:
        body = {"model": "small", "input": [{"type": "additional_tools", "role": "developer", "tools": [FUNCTION]}],
                "tools": [PATCH, FILES, SEARCH]}  # fmt: skip
        tools = tools_of(asked(body, endpoint=RESPONSES).request.parsed)
        assert tools.known == {
            "apply_patch": Known("apply_patch", None, True), "mcp__files__look_up": Known("look_up", "mcp__files__"),
            "mcp__files__apply_patch": Known("apply_patch", "mcp__files__", True), "look_up": Known("look_up"),
        }  # fmt: skip
        assert tools.left_out == {"web_search"}
        patch = tools.sent["apply_patch"]
        assert patch.parameters["required"] == ["input"] and "start: X" in (patch.description or "")
        assert tools.sent["look_up"].strict is True

    def test_of_the_past_have_the_names_that_are_sent(self) -> None:
        call = {
            "type": "function_call",
            "call_id": "c",
            "name": "look_up",
            "namespace": "mcp__files__",
            "arguments": "{}",
        }
        (turn,) = read([call], tools=[FILES]).turns
        assert turn.parts == (ToolCall("c", "mcp__files__look_up", "{}"),)

    def test_of_two_namespaces_are_two(self) -> None:
        tools = [FUNCTION | {"name": "a__b"}, {"type": "namespace", "name": "a", "tools": [FUNCTION | {"name": "b"}]}]
        assert len({tool.name for tool in read(tools=tools).tools}) == 2

    @pytest.mark.parametrize(
        ("choice", "read_as"),
        [
            ("auto", "auto"), ("none", "none"), ("required", "required"), (None, None), ("odd", None), (7, None),
            ({"type": "function", "name": "look_up"}, "look_up"), ({"type": "custom", "name": "apply_patch"}, "apply_patch"),
            ({"type": "function", "name": "look_up", "namespace": "mcp__files__"}, "mcp__files__look_up"),
            ({"type": "of_tomorrow"}, None),
        ],
    )  # fmt: skip
    def test_are_chosen(self, choice: Any, read_as: str | None) -> None:
        assert read(tools=[FUNCTION, PATCH, FILES], tool_choice=choice).choice == read_as

    def test_that_are_allowed_are_sent_alone(self) -> None:
        choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look_up"}]}
        conversation = read(tools=[FUNCTION, PATCH], tool_choice=choice)
        assert ([tool.name for tool in conversation.tools], conversation.choice) == (["look_up"], "required")

    @pytest.mark.parametrize(
        "fields",
        [
            {"tools": [SEARCH, FUNCTION], "tool_choice": {"type": "web_search"}},
            {"tools": [FUNCTION], "tool_choice": {"type": "mcp", "server_label": "x"}},
            {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "other"}},
            {"tools": [SEARCH], "tool_choice": "required"},
        ],
    )
    def test_that_are_not_there_and_insisted_on_are_named(self, fields: Any) -> None:
        with pytest.raises(ApiError) as refused:
            read(**fields)
        assert (refused.value.status, refused.value.param) == (400, "tool_choice")


class TestMembers:
    @pytest.mark.parametrize(
        ("format", "schema"),
        [
            (None, None), ({"type": "text"}, None), ({"type": "of_tomorrow"}, None),
            ({"type": "json_object"}, Schema({"type": "object"}, strict=False)),
            ({"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}, Schema({"a": 1}, "n", True)),
        ],
    )  # fmt: skip
    def test_a_format_is_a_schema(self, format: Any, schema: Schema | None) -> None:
        assert read(text={"format": format}).schema == schema

    def test_what_both_languages_know_is_read(self) -> None:
        conversation = read(
            reasoning={"effort": "xhigh", "summary": "auto"},
            parallel_tool_calls=False,
            temperature=1.5,
            top_p=0.5,
            user="u",
            service_tier="flex",
        )
        assert conversation.more == {}, "most upstreams have no tiers"
        assert (conversation.effort, conversation.parallel_calls) == ("xhigh", False)
        assert (conversation.temperature, conversation.top_p, conversation.user) == (1.5, 0.5, "u")

    def test_what_few_upstreams_take_is_read_for_them(self) -> None:
        body = {"model": "small", "input": "hi", "text": {"format": {"type": "json_object"}}, "service_tier": "flex"}
        conversation = asked(body, endpoint=RESPONSES).request.conversation(TAKES)
        assert conversation.more == {"json_object": True, "service_tier": "flex"} and conversation.schema is None
        sent = {name: json.loads(value) for name, value in members_of(conversation, stream=False).items()}
        assert (sent["response_format"], sent["service_tier"]) == ({"type": "json_object"}, "flex")

    def test_what_there_is_no_word_for_is_left_out_and_counted(self) -> None:
        parts = [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}, {"type": "of_tomorrow"}]}]
        items = [*parts, {"type": "web_search_call", "id": "ws"}]
        assert dropped(items, truncation="auto", brand_new=1, text={"verbosity": "low"}, tools=[SEARCH]) == {
            "parts", "items", "truncation", "other", "verbosity", "tools",
        }  # fmt: skip

    def test_what_concerns_the_dialect_alone_goes_unsaid(self) -> None:
        fields = {"store": False, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "metadata": {},
                  "client_metadata": {}, "background": False, "conversation": None}  # fmt: skip
        assert not dropped(**fields)


@given(st.lists(st.dictionaries(st.sampled_from(["type", "role", "content", "name", "tools", "call_id", "output", "summary",
       "encrypted_content", "arguments"]), st.sampled_from(["message", "user", "function_call", "reasoning",
       "function_call_output", "additional_tools", "namespace", "custom"]) | odd, max_size=5), max_size=4), odd, odd)  # fmt: skip
def test_no_input_is_more_than_refused(items: list[Any], choice: Any, text: Any) -> None:
    body = {"model": "small", "input": items, "tool_choice": choice, "text": text, "reasoning": text, "tools": [FILES]}
    with suppress(ApiError):
        conversation = asked(json.dumps(body).encode(), endpoint=RESPONSES).request.conversation()
        assert all(json.loads(value) is not None for value in members_of(conversation, stream=True).values())
