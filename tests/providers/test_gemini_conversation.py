"""Gemini is asked in its own words, and nothing is lost on the way through it that both sides know."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.dialects import dialect
from app.gateway.dialects.anthropic_messages import _blocks_of
from app.gateway.dialects.openai_conversation import answer_of
from app.providers.base import UpstreamRequest, Usage
from app.providers.conversation import (
    Conversation,
    Media,
    Reasoning,
    Reply,
    Schema,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from app.providers.gemini_conversation import TAKES, UNSIGNED, body_of, traits_of
from tests.providers.test_anthropic_conversation import calls, conversations, of_lists, results, texts, words

OLD, BUDGET, LEVEL = "gemini-2.0-flash", "gemini-2.5-flash", "gemini-3-flash-preview"
HI = Turn("user", (Text("hi"),))


def forgotten(id: str) -> None:
    """Nothing is remembered of any call."""


def asked(**more: Any) -> Conversation:
    return Conversation(turns=(HI,), **more)


def config(conversation: Conversation, model: str = LEVEL, limit: int | None = None) -> dict[str, Any]:
    found: dict[str, Any] = body_of(conversation, model, limit, forgotten).get("generationConfig", {})
    return found


def contents(*turns: Turn, model: str = LEVEL, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body_of(Conversation(turns=turns), model, None, forgotten, **more)["contents"]
    return found


@pytest.mark.parametrize(
    ("model", "effort", "limit", "thinking"),
    [
        (LEVEL, None, None, None),
        (LEVEL, "none", None, ("MINIMAL", False)),
        (LEVEL, "minimal", None, ("MINIMAL", True)),
        (LEVEL, "medium", None, ("MEDIUM", True)),
        (LEVEL, "xhigh", None, ("HIGH", True)),
        (LEVEL, "brand-new", None, ("HIGH", True)),
        ("gemini-3-pro-preview", "none", None, ("LOW", False)),
        ("gemini-3-pro-preview", "medium", None, ("LOW", True)),
        ("gemini-3.1-pro-preview", "minimal", None, ("LOW", True)),
        ("gemini-3.1-pro-preview", "medium", None, ("MEDIUM", True)),
        ("gemini-flash-latest", "low", None, ("LOW", True)),
        (BUDGET, "none", None, (0, False)),
        (BUDGET, "low", None, (1024, True)),
        (BUDGET, "medium", None, (8192, True)),
        (BUDGET, "high", None, (24_576, True)),
        (BUDGET, "max", None, (24_576, True)),
        (BUDGET, "high", 1000, (999, True)),
        (BUDGET, "high", 1, (0, False)),
        ("gemini-2.5-flash-lite", "high", 300, (0, False)),
        ("models/gemini-2.5-pro", "none", None, (128, False)),
        ("gemini-2.5-pro", "max", None, (32_768, True)),
        ("gemini-2.5-pro", "high", 16, (128, True)),
        (OLD, "high", None, None),
        ("gemini-2.5-flash-image", "high", None, None),
        ("gemini-3-pro-image-preview", "high", None, None),
        ("gemma-3-27b-it", "high", None, None),
    ],
)
def test_an_effort_is_asked_for_in_the_way_of_the_model(
    model: str, effort: str | None, limit: int | None, thinking: tuple[Any, bool] | None
) -> None:
    told = config(asked(effort=effort), model, limit).get("thinkingConfig")
    if thinking is None:
        assert told is None
        return
    name = "thinkingLevel" if isinstance(thinking[0], str) else "thinkingBudget"
    assert told == {name: thinking[0], "includeThoughts": thinking[1]}


def test_what_is_configured_has_its_names() -> None:
    more = {"seed": 7, "top_k": 3, "frequency_penalty": 0.5, "presence_penalty": -1, "service_tier": "flex"}
    conversation = asked(
        temperature=0.0, top_p=0.5, stop=("a", "b"), schema=Schema({"type": "object", "$ref": "x"}), more=more
    )
    assert config(conversation, limit=9) == {
        "seed": 7, "topK": 3, "frequencyPenalty": 0.5, "presencePenalty": -1, "temperature": 0.0, "topP": 0.5,
        "maxOutputTokens": 9, "stopSequences": ["a", "b"], "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "$ref": "x"},
    }  # fmt: skip
    assert body_of(conversation, LEVEL, 9, forgotten)["serviceTier"] == "flex"
    assert config(asked(more={"json_object": True})) == {"responseMimeType": "application/json"}
    assert "serviceTier" not in body_of(asked(more={"service_tier": "fast"}), LEVEL, None, forgotten)
    assert "generationConfig" not in body_of(asked(), LEVEL, None, forgotten)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("auto", {"mode": "AUTO"}), ("none", {"mode": "NONE"}), ("required", {"mode": "ANY"}),
        ("f", {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)  # fmt: skip
def test_tools_go_up_with_their_schemas_as_they_are(choice: str, told: dict[str, Any]) -> None:
    schema = {
        "$schema": "x",
        "type": "object",
        "additionalProperties": False,
        "properties": {"a": {"anyOf": [{"const": 1}]}},
    }
    body = body_of(
        asked(tools=(Tool("f", "Does.", schema, True), Tool("g", None, {})), choice=choice), LEVEL, None, forgotten
    )
    declared = [
        {"name": "f", "description": "Does.", "parametersJsonSchema": schema},
        {"name": "g", "parametersJsonSchema": {}},
    ]
    assert body["tools"] == [{"functionDeclarations": declared}]
    assert body["toolConfig"] == {"functionCallingConfig": told}


def test_results_follow_their_calls_in_their_order() -> None:
    _, called, told = contents(
        HI,
        Turn(
            "assistant",
            (Text("Wait."), ToolCall("a", "f", '{"x":1}', "U0lH"), ToolCall("unnamed_r_1", "g", "nonsense")),
        ),
        Turn("user", (ToolResult("unnamed_r_1", (Text("no"),), is_error=True),)),
        Turn("user", (Text("And then?"), ToolResult("a", (Text("1"), Text("2"))))),
    )
    assert called["parts"] == [
        {"text": "Wait."},
        {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "U0lH"},
        {"functionCall": {"name": "g", "args": {}}},
    ]
    assert told == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "a", "name": "f", "response": {"output": "12"}}},
            {"functionResponse": {"name": "g", "response": {"error": "no"}}},
            {"text": "And then?"},
        ],
    }


def test_a_picture_that_a_tool_gave_is_shown_where_the_model_looks() -> None:
    turns = (HI, Turn("assistant", (ToolCall("a", "f", "{}"),)),
             Turn("user", (ToolResult("a", (Text("x"), Media("image", data="QUJD", media_type="image/png"))),)))  # fmt: skip
    picture = {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}
    response = {"id": "a", "name": "f", "response": {"output": "x"}}
    assert contents(*turns)[-1]["parts"] == [{"functionResponse": response | {"parts": [picture]}}]
    assert contents(*turns, model=BUDGET)[-1]["parts"] == [{"functionResponse": response}, picture]


def test_the_first_call_of_each_step_is_signed() -> None:
    """By its own signature, by the one that is remembered, or by the word that stands for one."""
    step = Turn("assistant", (ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}")))
    for model, remembered, expected in (
        (LEVEL, None, [UNSIGNED, None]),
        (LEVEL, "Uk0=", ["Uk0=", None]),
        (BUDGET, None, [None, None]),
        (BUDGET, "Uk0=", ["Uk0=", None]),
    ):
        body = body_of(Conversation(turns=(HI, step)), model, None, {"a": remembered}.get)
        assert [part.get("thoughtSignature") for part in body["contents"][1]["parts"]] == expected
    signed = Turn("assistant", (Text("", "VA=="), ToolCall("a", "f", "{}", "U0lH")))
    assert contents(HI, signed)[1]["parts"][0] == {"text": "", "thoughtSignature": "VA=="}
    assert [part.get("thoughtSignature") for part in contents(HI, signed, signs=False)[1]["parts"]] == [UNSIGNED]


def test_instructions_stand_apart_and_alone_they_are_the_question() -> None:
    system = Turn("system", (Text("Be brief."),))
    body = body_of(Conversation(turns=(system, HI, system)), LEVEL, None, forgotten)
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be brief."}]}
    assert [one["role"] for one in body["contents"]] == ["user"]
    alone = body_of(Conversation(turns=(system,)), LEVEL, None, forgotten)
    assert alone == {"contents": [{"role": "user", "parts": [{"text": "Be brief."}]}]}


def test_thoughts_and_empty_texts_are_not_sent() -> None:
    said = Turn("assistant", (Reasoning("Hm.", "of another"), Text(""), Text("Hi.")))
    assert contents(HI, said)[1]["parts"] == [{"text": "Hi."}]


signatures = st.none() | st.from_regex(r"[a-zA-Z0-9+/]{4,12}={0,2}", fullmatch=True)
signed_texts = st.builds(Text, words, signatures)
signed_calls = st.builds(
    lambda call, signature: ToolCall(call.id, call.name, call.arguments, signature), calls, signatures
)
signed = of_lists(
    st.lists(signed_texts, max_size=2),
    st.lists(st.builds(Text, st.just(""), words), max_size=1),
    st.lists(signed_calls, max_size=2),
)


def from_client(name: str, body: dict[str, Any]) -> Conversation:
    """What a client's body says, for Gemini."""
    spoken = dialect(name)
    read = spoken.read(json.dumps({"model": "m", "max_tokens": 9} | body).encode())
    request = UpstreamRequest(
        capability="chat",
        dialect=name,
        model="m",
        members=read.members,
        parsed=read.checked,
        translate=spoken.conversation,
    )
    return request.conversation(TAKES)


@given(st.lists(results | texts, min_size=1, max_size=2), signed)
def test_signatures_come_back_through_anthropic_s_dialect_in_their_places(
    asks: list[Any], answer: tuple[Any, ...]
) -> None:
    blocks = [block for part in answer for block in _blocks_of(part, {})]
    turn = from_client(
        "anthropic_messages",
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": blocks}]},
    )
    assert turn.turns[1].parts == answer
    assert contents(HI, turn.turns[1]) == contents(HI, Turn("assistant", answer))


@given(st.builds(Text, words, signatures), st.lists(signed_calls, max_size=3))
def test_signatures_come_back_through_openai_s_dialect_in_their_places(text: Text, made: list[ToolCall]) -> None:
    request = UpstreamRequest(capability="chat", dialect="openai_chat", model="m", members={}, parsed=None)
    message = json.loads(answer_of(request, Reply(parts=(text, *made), finish="stop"), Usage()))["choices"][0][
        "message"
    ]
    back = from_client("openai_chat", {"messages": [{"role": "user", "content": "hi"}, message]})
    assert back.turns[1].parts == (text, *made)


@given(conversations, st.sampled_from([OLD, BUDGET, LEVEL]), st.none() | st.integers(1, 40_000))
def test_any_conversation_can_be_asked(conversation: Conversation, model: str, limit: int | None) -> None:
    """With sides in turns, as many results as were told, and the limit that was reserved."""
    body = body_of(conversation, model, limit, forgotten)
    msgspec.json.encode(body)
    roles = [one["role"] for one in body["contents"]]
    assert all(one != other for one, other in pairwise(roles)) and all(one["parts"] for one in body["contents"])
    parts = [part for one in body["contents"] for part in one["parts"]]
    told = [part for turn in conversation.turns for part in turn.parts]
    for name, kind in (("functionCall", ToolCall), ("functionResponse", ToolResult)):
        assert sum(name in part for part in parts) == sum(isinstance(part, kind) for part in told)
    assert body.get("generationConfig", {}).get("maxOutputTokens") == limit


def read_back(body: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    """What Gemini is told, in the neutral language, read by nothing of the application."""

    def media(part: dict[str, Any]) -> Media:
        inline = part.get("inlineData") or part["fileData"]
        kind: Any = "image" if inline["mimeType"].startswith("image/") else "document"
        if "data" in inline:
            return Media(kind, data=inline["data"], media_type=inline["mimeType"])
        return Media(kind, url=inline["fileUri"])

    def part_of(part: dict[str, Any]) -> Any:
        match part:
            case {"text": text, **more}:
                return Text(text, more.get("thoughtSignature"))
            case {"functionCall": {"id": id, "name": name, "args": args}, **more}:
                signature = more.get("thoughtSignature")
                arguments = json.dumps(args, separators=(",", ":"))
                return ToolCall(id, name, arguments, None if signature == UNSIGNED else signature)
            case {"functionResponse": {"id": id, "response": {**said}, **more}}:
                ((word, text),) = said.items()
                inner = (*([Text(text)] if text else []), *map(media, more.get("parts", [])))
                return ToolResult(id, inner, word == "error")
        return media(part)

    return [(one["role"], [part_of(part) for part in one["parts"]]) for one in body["contents"]]


def expected_of(conversation: Conversation) -> list[tuple[str, list[Any]]]:
    """What of a conversation Gemini has words for: results first, their texts joined before their media, and no thoughts."""
    found: list[tuple[str, list[Any]]] = []
    for turn in conversation.turns:
        parts: list[Any] = [part for part in turn.parts if not isinstance(part, Reasoning)]
        if turn.role == "system" or not parts:
            continue
        role = "model" if turn.role == "assistant" else "user"
        if found and found[-1][0] == role:
            found[-1][1].extend(parts)
        else:
            found.append((role, parts))
    for _, parts in found:
        parts.sort(key=lambda part: not isinstance(part, ToolResult))
        for place, part in enumerate(parts):
            if isinstance(part, ToolResult):
                text = "".join(inner.text for inner in part.parts if isinstance(inner, Text))
                shown = [inner for inner in part.parts if isinstance(inner, Media)]
                parts[place] = ToolResult(part.id, (*([Text(text)] if text else []), *shown), part.is_error)
    return found


@given(conversations)
def test_a_conversation_that_is_written_is_read_as_the_same(conversation: Conversation) -> None:
    body = body_of(conversation, LEVEL, 9, forgotten)
    told, expected = read_back(body), expected_of(conversation)
    assert [role for role, _ in told] == [role for role, _ in expected]
    for (_, found), (_, parts) in zip(told, expected, strict=True):
        results = [part for part in parts if isinstance(part, ToolResult)]
        assert sorted(found[: len(results)], key=repr) == sorted(results, key=repr)
        assert found[len(results) :] == parts[len(results) :]
    systems = [
        part.text
        for turn in conversation.turns
        if turn.role == "system"
        for part in turn.parts
        if isinstance(part, Text)
    ]
    assert [part["text"] for part in body.get("systemInstruction", {"parts": []})["parts"]] == systems
    (declared,) = body.get("tools") or [{"functionDeclarations": []}]
    assert [
        (one["name"], one.get("description"), one["parametersJsonSchema"]) for one in declared["functionDeclarations"]
    ] == [(tool.name, tool.description, tool.parameters) for tool in conversation.tools]
    config = body["generationConfig"]
    assert config.get("temperature") == conversation.temperature
    assert tuple(config.get("stopSequences", ())) == conversation.stop
    assert ("responseJsonSchema" in config) is (conversation.schema is not None)
    assert ("thinkingConfig" in config) is (conversation.effort is not None)


@pytest.mark.parametrize("model", [OLD, BUDGET, LEVEL, "gemini-9-ultra", "tunedModels/mine", "gemma-3"])
def test_models_are_known_by_their_names(model: str) -> None:
    traits = traits_of(model)
    assert traits.wants_signatures is (model in (LEVEL, "gemini-9-ultra"))
    assert bool(traits.levels) is traits.wants_signatures and (traits.budget is not None) is (model == BUDGET)
