"""What Anthropic says and hears, in the neutral language, for clients that speak another dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from app.providers.base import UpstreamRequest
from app.providers.conversation import (
    Conversation,
    Event,
    FinishReason,
    Media,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Turn,
)  # fmt: skip
from app.providers.lenient_json import all_whole, read_json, whole

REASONS: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "refusal": "content_filter", "model_context_window_exceeded": "length",
}  # fmt: skip
LEAST_BUDGET = 1024  # tokens that a model must be given, if it is to think within a budget
BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384}
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")
_BY_BUDGET = re.compile(r"claude-(?:[0-3]\b|instant|(?:opus|sonnet|haiku)-4-(?:[0-5]\b|\d{6,}))")
_WITH_SAMPLING = re.compile(r"claude-(?:opus|sonnet|haiku)-4-6\b")


class Traits(NamedTuple):
    """What a model takes, by its name at the provider."""

    adapts: bool  # it thinks as much as it finds right; older ones within a budget
    samples: bool  # it takes a temperature
    most: str  # the highest effort that it knows


def traits_of(model: str) -> Traits:
    """Newer models are the rule, older ones are known by their names."""
    if _BY_BUDGET.search(model):
        return Traits(adapts=False, samples=True, most="high")
    if _WITH_SAMPLING.search(model):
        return Traits(adapts=True, samples=True, most="high")
    return Traits(adapts=True, samples=False, most="max")


def body_of(request: UpstreamRequest, conversation: Conversation, model: str, max_tokens: int) -> dict[str, Any]:
    """The body of a request that was asked in another dialect."""
    traits = traits_of(model)
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "messages": _messages(conversation)}
    systems = [
        part.text
        for turn in conversation.turns
        if turn.role == "system"
        for part in turn.parts
        if isinstance(part, Text) and part.text
    ]
    if systems:
        body["system"] = systems[0] if len(systems) == 1 else [{"type": "text", "text": text} for text in systems]
    if request.stream:
        body["stream"] = True
    if conversation.tools:
        body["tools"] = [_tool(tool) for tool in conversation.tools]
        if choice := _choice(conversation):
            body["tool_choice"] = choice
    if conversation.stop:
        body["stop_sequences"] = list(conversation.stop)
    if conversation.user is not None:
        body["metadata"] = {"user_id": conversation.user}
    if conversation.schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": conversation.schema.schema}}
    _think(body, conversation, traits)
    if traits.samples and "thinking" not in body:
        if conversation.temperature is not None:
            body["temperature"] = min(conversation.temperature, 1)
        elif conversation.top_p is not None:
            body["top_p"] = conversation.top_p
    return body


def _think(body: dict[str, Any], conversation: Conversation, traits: Traits) -> None:
    """Ask for as much thinking as the client asked for; of an effort that a model lacks the nearest lower one counts."""
    effort = conversation.effort
    if effort is None or effort == "none":
        if effort and traits.adapts:
            body["thinking"] = {"type": "disabled"}
        return
    level = EFFORTS.get(effort, "high")
    if traits.adapts:
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
        level = "high" if traits.most == "high" and level in ("xhigh", "max") else level
        body["output_config"] = body.get("output_config", {}) | {"effort": level}
        return
    budget = min(BUDGETS.get(effort, body["max_tokens"]), body["max_tokens"] - 1)
    is_forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    if budget >= LEAST_BUDGET and not is_forced and not _lacks_thoughts(conversation):
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _lacks_thoughts(conversation: Conversation) -> bool:
    """Whether the model is to go on behind a call of a tool whose thoughts are not there any more, which it refuses."""
    said = [turn for turn in conversation.turns if turn.role != "system"]
    if not said or not any(isinstance(part, ToolResult) for part in said[-1].parts):
        return False
    asked = next((turn for turn in reversed(said) if turn.role == "assistant"), None)
    return asked is None or not any(isinstance(part, Reasoning) and part.signature for part in asked.parts)


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Turns of one side in a row are one message, results of tools first."""
    merged: list[tuple[str, list[dict[str, Any]]]] = []
    for turn in conversation.turns:
        blocks = [] if turn.role == "system" else _blocks(turn)
        if not blocks:
            continue
        if merged and merged[-1][0] == turn.role:
            merged[-1][1].extend(blocks)
        else:
            merged.append((turn.role, blocks))
    return [
        {"role": role, "content": sorted(blocks, key=lambda block: block["type"] != "tool_result")}
        if role == "user" and len(blocks) > 1
        else {"role": role, "content": blocks}
        for role, blocks in merged
    ]


def _blocks(turn: Turn) -> list[dict[str, Any]]:
    blocks = [
        _block(part) for part in turn.parts if not isinstance(part, Text) or part.text and not part.text.isspace()
    ]
    return [block for block in blocks if block is not None]


def _block(part: Part) -> dict[str, Any] | None:
    """A part as a block; None for thoughts that nobody signed, which are not taken."""
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Reasoning(redacted=True):
            return {"type": "redacted_thinking", "data": part.signature or ""}
        case Reasoning():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature} if part.signature else None
        case Media():
            return _media(part)
        case ToolCall():
            arguments = read_json(part.arguments.encode())
            return {
                "type": "tool_use",
                "id": _id(part.id),
                "name": part.name,
                "input": arguments if isinstance(arguments, dict) else {},
            }
        case ToolResult():
            content = [block for inner in part.parts if (block := _block(inner)) and block.get("text") != ""]
            result = {"type": "tool_result", "tool_use_id": _id(part.id), "content": content}
            return result | ({"is_error": True} if part.is_error else {})


def _media(part: Media) -> dict[str, Any]:
    kind = "image" if part.kind == "image" else "document"
    if part.url:
        return {"type": kind, "source": {"type": "url", "url": part.url}}
    usual = "image/png" if kind == "image" else "application/pdf"
    return {"type": kind, "source": {"type": "base64", "media_type": part.media_type or usual, "data": part.data}}


def _id(id: str) -> str:
    """The id of a call, as it may be written: both call and result have it from here."""
    return _NO_ID.sub("_", id) or "_"


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name, "input_schema": {"type": "object"} | tool.parameters}
    if tool.description:
        written["description"] = tool.description
    if tool.strict is not None:
        written["strict"] = tool.strict
    return written


def _choice(conversation: Conversation) -> dict[str, Any]:
    choice = conversation.choice
    if choice is None and conversation.parallel_calls is not False:
        return {}
    word = {"required": "any", "auto": "auto", "none": "none"}.get(choice or "auto")
    written: dict[str, Any] = {"type": word} if word else {"type": "tool", "name": choice}
    if conversation.parallel_calls is False and word != "none":
        written["disable_parallel_tool_use"] = True
    return written


def part_of(block: Any) -> Text | Reasoning | ToolCall | None:
    """A block of an answer; None for one that the neutral language has no word for."""
    if not isinstance(block, dict):
        return None
    match block.get("type"):
        case "text":
            return Text(_text(block, "text"))
        case "tool_use":
            arguments = block.get("input")
            return ToolCall(
                _text(block, "id"),
                _text(block, "name"),
                whole(msgspec.json.encode(all_whole(arguments or {})).decode()),
            )
        case "thinking":
            return Reasoning(_text(block, "thinking"), _text(block, "signature") or None)
        case "redacted_thinking":
            return Reasoning("", _text(block, "data"), redacted=True)
    return None


def event_of_start(block: Any, call: int) -> Event | None:
    """What the beginning of a block says; `call` is the index of the call that it would be."""
    match part_of(block):
        case ToolCall() as made:
            arguments = "" if made.arguments == "{}" else made.arguments
            return ToolCallDelta(call, made.id, made.name, arguments)
        case Reasoning(redacted=True) as hidden:
            return hidden
        case (Text() | Reasoning()) as said if said.text:
            return said
    return None


def events_of_delta(delta: Any, call: int, clean: Callable[[object, str], str]) -> Iterator[Event]:
    """What a delta says; `clean` puts halves of characters together, by the place that it is told."""
    delta = delta if isinstance(delta, dict) else {}
    kind = delta.get("type")
    match kind:
        case "text_delta":
            if text := clean("text", _text(delta, "text")):
                yield Text(text)
        case "thinking_delta":
            if text := clean("thinking", _text(delta, "thinking")):
                yield Reasoning(text)
        case "signature_delta":
            if signature := _text(delta, "signature"):
                yield Reasoning("", whole(signature))
        case "input_json_delta" if call >= 0:
            if text := clean(call, _text(delta, "partial_json")):
                yield ToolCallDelta(call, arguments=text)


def _text(value: dict[str, Any], name: str) -> str:
    text = value.get(name)
    return text if isinstance(text, str) else ""
