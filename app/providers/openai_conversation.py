"""What an OpenAI-shaped upstream says and hears, in the neutral language, for clients that speak another dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, cast, get_args

import msgspec

from app.providers.conversation import (
    Conversation,
    Event,
    Finish,
    FinishReason,
    Media,
    Part,
    Reasoning,
    Reply,
    Silence,
    Text,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Turn,
)  # fmt: skip
from app.providers.lenient_json import WholeText, read_json, whole

TAKES = frozenset(("json_object", "service_tier"))  # of `Conversation.more`
REASONS: tuple[str, ...] = get_args(FinishReason)
THOUGHT = ("reasoning_content", "reasoning")  # as upstreams call it


def members_of(
    conversation: Conversation, *, stream: bool, can_reason: bool = False, hears_thoughts: bool = False
) -> dict[str, bytes]:
    """The members of a chat request, each as JSON, without its model and limit. An effort goes to models that `can_reason`:
    others refuse it. Thoughts go back to upstreams that want to hear them again."""
    body: dict[str, Any] = {
        "messages": [message for turn in conversation.turns for message in _messages(turn, hears_thoughts)]
    }
    if conversation.tools:
        body["tools"] = [_tool(tool) for tool in conversation.tools]
        if conversation.choice is not None:
            body["tool_choice"] = _choice(conversation.choice)
        if conversation.parallel_calls is not None:
            body["parallel_tool_calls"] = conversation.parallel_calls
    if conversation.stop:
        body["stop"] = list(conversation.stop)
    if conversation.effort is not None and can_reason:
        body["reasoning_effort"] = conversation.effort
    if conversation.schema is not None:
        schema = conversation.schema
        named: dict[str, Any] = {"name": schema.name, "schema": schema.schema}
        if schema.strict is not None:
            named["strict"] = schema.strict
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    elif conversation.more.get("json_object"):
        body["response_format"] = {"type": "json_object"}
    if (tier := conversation.more.get("service_tier")) is not None:
        body["service_tier"] = tier
    for name in ("temperature", "top_p", "user"):
        if (value := getattr(conversation, name)) is not None:
            body[name] = value
    if stream:
        body["stream"] = True
    return {name: msgspec.json.encode(value) for name, value in body.items()}


def _messages(turn: Turn, hears_thoughts: bool) -> Iterator[dict[str, Any]]:
    """A turn as messages: each result of a tool is one of its own, before what else was said. Pictures in a result can only
    be shown behind it."""
    first = turn.parts[0] if len(turn.parts) == 1 else None
    if isinstance(first, Text):  # nearly all there are
        yield {"role": turn.role, "content": first.text}
        return
    shown: list[Text | Media] = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            text = "".join(inner.text for inner in part.parts if isinstance(inner, Text))
            yield {"role": "tool", "tool_call_id": part.id, "content": f"Error: {text}" if part.is_error else text}
            shown += [inner for inner in part.parts if isinstance(inner, Media)]
    said = shown + [part for part in turn.parts if isinstance(part, Text | Media)]
    calls = [part for part in turn.parts if isinstance(part, ToolCall)]
    if not said and not calls:
        return
    message: dict[str, Any] = {"role": turn.role, "content": _content(said)}
    thoughts = [part.text for part in turn.parts if isinstance(part, Reasoning)] if hears_thoughts else []
    if any(thoughts):
        message[THOUGHT[0]] = "".join(thoughts)
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    yield message


def _content(parts: list[Text | Media]) -> Any:
    if not parts:
        return None
    if all(isinstance(part, Text) for part in parts):
        texts = [part.text for part in parts if isinstance(part, Text)]
        return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Media(kind="image"):
            return {"type": "image_url", "image_url": {"url": _url(part)}}
        case Media(kind="audio", data=str()):
            format = (part.media_type or "audio/wav").partition("/")[2]
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": format}}
        case Media():
            return {"type": "file", "file": {"file_data": _url(part), "filename": "document"}}
        case Text():
            return {"type": "text", "text": part.text}
    raise AssertionError(part)


def _url(media: Media) -> str:
    return media.url or f"data:{media.media_type or 'application/octet-stream'};base64,{media.data}"


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: str) -> Any:
    return choice if choice in ("auto", "none", "required") else {"type": "function", "function": {"name": choice}}


def reply_of(body: bytes) -> Reply:
    """A whole answer that `OpenAIExchange.body` found to be one: its first choice."""
    choice = _first_choice(read_json(body))
    parts: list[Text | Reasoning | ToolCall] = []
    for piece in _pieces(choice.get("message"), lambda _, text: whole(text)):
        if isinstance(piece, ToolCallDelta):
            parts.append(ToolCall(piece.id or "", piece.name or "", piece.arguments or "{}"))
        else:
            parts.append(piece)
    return Reply(parts=tuple(parts), finish=_reason(choice.get("finish_reason")))


def events_of(pieces: Iterable[bytes]) -> Iterator[Event]:
    """A stream's events, from the pieces that `OpenAIExchange.events` gives; those of the first choice."""
    reason: str | None = None
    clean = WholeText().add
    for piece in pieces:
        for event in piece.split(b"\n\n"):
            if not event:
                continue
            if event.startswith(b":"):  # a comment
                yield Silence()
                continue
            data = event.removeprefix(b"data: ")
            if (text := _text_of(data)) is not None:
                if text := clean(Text, text):
                    yield Text(text)
                continue
            choice = _first_choice(read_json(data))
            yield from _pieces(choice.get("delta"), clean)
            if isinstance(choice.get("finish_reason"), str):
                reason = choice["finish_reason"]
    yield Finish(_reason(reason))


class _Delta(msgspec.Struct, gc=False):
    content: str
    # Without a value where a chunk says nothing but its text.
    reasoning_content: None = None
    reasoning: None = None
    tool_calls: None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    index: Literal[0] = 0
    finish_reason: None = None


class _TextChunk(msgspec.Struct, gc=False):
    """A chunk that says nothing but a text, which nearly all do."""

    choices: tuple[_Choice]


_text_chunk = msgspec.json.Decoder(_TextChunk)


def _text_of(data: bytes) -> str | None:
    """The text of a chunk that says nothing else, None for any other."""
    try:
        return _text_chunk.decode(data).choices[0].delta.content
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _pieces(said: Any, clean: Callable[[object, str], str]) -> Iterator[Text | Reasoning | ToolCallDelta]:
    """What a message or a delta says, its texts made `clean`, which is told the place of each."""
    said = said if isinstance(said, dict) else {}
    for member, kind in ((THOUGHT[0], Reasoning), (THOUGHT[1], Reasoning), ("content", Text)):
        text = said.get(member)
        if member == THOUGHT[1] and said.get(THOUGHT[0]):  # the same by another name
            continue
        if isinstance(text, str) and (text := clean(kind, text)):
            yield kind(text)
    for place, call in enumerate(_objects(said.get("tool_calls"))):
        index, id, function = call.get("index"), call.get("id"), call.get("function")
        function = function if isinstance(function, dict) else {}
        name, arguments = function.get("name"), function.get("arguments")
        index = index if type(index) is int and index >= 0 else place
        yield ToolCallDelta(
            index=index,
            id=whole(id) if isinstance(id, str) and id else None,
            name=whole(name) if isinstance(name, str) and name else None,
            arguments=clean(index, arguments) if isinstance(arguments, str) else "",
        )


def _first_choice(value: Any) -> dict[str, Any]:
    choices = _objects(value.get("choices") if isinstance(value, dict) else None)
    return next((choice for choice in choices if choice.get("index", 0) == 0), {})


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _reason(told: Any) -> FinishReason:
    if told == "function_call":
        return "tool_calls"
    return cast("FinishReason", told) if told in REASONS else "stop"
