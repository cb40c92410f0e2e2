"""OpenAI's chat completions in the neutral language: requests are read from it, answers are written in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from app import clock
from app.gateway import metrics
from app.gateway.errors import bad_request
from app.providers.base import Exchange, Pieces, UpstreamRequest, Usage
from app.providers.conversation import (
    Conversation,
    Finish,
    Media,
    Part,
    Reasoning,
    Reply,
    Role,
    Schema,
    Silence,
    Text,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Turn,
)  # fmt: skip
from app.providers.sse import KEEP_ALIVE
from app.runtime.ids import new_id

# Members that would change the meaning if they were left out, and the values that say nothing.
UNTRANSLATED = {
    "n": (None, 1), "best_of": (None, 1), "logprobs": (None, False), "top_logprobs": (None, 0), "functions": (None, []),
    "logit_bias": (None, {}),
}  # fmt: skip
# Members that can be said in other dialects.
TRANSLATED = frozenset((
    *UNTRANSLATED, "model", "messages", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "stop",
    "temperature", "top_p", "user", "reasoning_effort", "response_format",
))  # fmt: skip
# Those that are counted by their names, if they are left out.
NAMED = frozenset((
    "frequency_penalty", "presence_penalty", "seed", "verbosity", "metadata", "store", "service_tier", "modalities",
    "prediction", "prompt_cache_key", "safety_identifier", "web_search_options",
))  # fmt: skip
# Stands for the text of a chunk, whose other bytes are the same all along a stream.
TEXT = "\x00text"
TEXT_SPELLED = msgspec.json.encode(TEXT)
_MEDIA = {"image_url": "image", "audio_url": "audio", "input_audio": "audio", "file": "document"}


def conversation_of(request: UpstreamRequest) -> Conversation:
    """A checked chat request in the neutral language. Raises `ApiError` 400 for what can't be said in it."""
    asked = request.parsed
    for name, empty in UNTRANSLATED.items():
        if getattr(asked, name) not in empty:
            raise bad_request(f"The provider of '{request.model}' does not take '{name}'. Leave it out.", name)
    stop = asked.stop
    takes = request.takes
    for name, raw in request.members.items():
        if name not in TRANSLATED and name not in takes and raw != b"null":
            metrics.count_dropped("openai_chat", name if name in NAMED else "other")
    return Conversation(
        turns=tuple([_turn(message, index) for index, message in enumerate(asked.messages)]),
        tools=tuple(_tool(tool["function"]) for tool in asked.tools or () if tool["type"] == "function"),
        choice=_choice(asked.tool_choice),
        parallel_calls=asked.parallel_tool_calls,
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        temperature=asked.temperature,
        top_p=asked.top_p,
        user=asked.user,
        effort=asked.reasoning_effort,
        schema=_schema(asked.response_format, request),
        more=_more(asked, takes) if takes else {},
    )


def _more(asked: Any, takes: frozenset[str]) -> dict[str, Any]:
    """What this upstream takes besides, as far as the client gave it."""
    found = {name: value for name in takes if (value := getattr(asked, name, None)) is not None}
    if asked.response_format is not None and asked.response_format["type"] == "json_object":
        found["json_object"] = True
    return found


def _schema(format: dict[str, Any] | None, request: UpstreamRequest) -> Schema | None:
    """What the answer is to look like. Raises `ApiError` 400 for what has no schema."""
    match format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"} if "json_object" in request.takes:
            return None
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), **rest}}:
            name, strict = rest.get("name"), rest.get("strict")
            return Schema(
                schema, name if isinstance(name, str) else "answer", strict if isinstance(strict, bool) else None
            )
    raise bad_request(
        f"The provider of '{request.model}' takes no 'response_format' but text and json_schema.", "response_format"
    )


_ROLES: dict[str, Role] = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}


def _turn(message: Any, index: int) -> Turn:
    content, role = message.content, _ROLES.get(message.role)
    if role is not None and type(content) is str and content and _is_text(message):  # nearly all there are
        return Turn(role, (Text(content),))
    place = f"messages[{index}]"
    parts = tuple(_parts(content, f"{place}.content"))
    match message.role:
        case "user" | "system" | "developer":
            return Turn(_ROLES[message.role], parts)
        case "assistant":
            calls = (_call(call, f"{place}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls or ()))
            return Turn("assistant", (*_thoughts(message), *_signed(parts, message.extra_content), *calls))
        case "tool" | "function":
            id = message.tool_call_id or message.name
            if not isinstance(id, str) or not id:
                raise bad_request(f"'{place}.tool_call_id' is missing.", f"{place}.tool_call_id")
            return Turn("user", (ToolResult(id, tuple(part for part in parts if isinstance(part, Text | Media))),))
    raise AssertionError(message.role)


def _is_text(message: Any) -> bool:
    """Whether it says nothing but its content."""
    return (
        message.tool_calls is None
        and message.thinking_blocks is None
        and message.reasoning_content is None
        and message.extra_content is None
    )


def _thoughts(message: Any) -> Iterator[Reasoning]:
    """What was thought before an answer of the past: whole blocks where the client has kept them, else the text alone."""
    kept = message.thinking_blocks
    blocks = [block for block in kept if isinstance(block, dict)] if isinstance(kept, list) else []
    for block in blocks:
        text, signature, data = block.get("thinking"), block.get("signature"), block.get("data")
        if block.get("type") == "redacted_thinking":
            yield Reasoning("", data if isinstance(data, str) else None, redacted=True)
        elif isinstance(text, str):
            yield Reasoning(text, signature if isinstance(signature, str) else None)
    if not blocks and isinstance(message.reasoning_content, str) and message.reasoning_content:
        yield Reasoning(message.reasoning_content)


def _block(part: Reasoning) -> dict[str, Any]:
    """A signed thought as clients of this dialect give it back."""
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.signature}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _parts(content: Any, place: str) -> Iterator[Part]:
    if isinstance(content, str):
        if content:
            yield Text(content)
        return
    for index, part in enumerate(content or ()):
        kind = part["type"]
        if kind in ("text", "refusal"):
            yield Text(part[kind])
        elif kind in _MEDIA:
            yield _media(part[kind], kind)
        else:
            raise bad_request(f"A part of the type '{kind}' can't be sent to this model.", f"{place}[{index}].type")


def _media(value: Any, kind: str) -> Media:
    neutral: Any = _MEDIA[kind]
    if kind == "input_audio":
        return Media(neutral, data=value["data"], media_type=f"audio/{value['format']}")
    url = value if isinstance(value, str) else value.get("file_data") if kind == "file" else value["url"]
    if not isinstance(url, str):
        raise bad_request("A file can only be sent to this model within the request, as 'file_data'.", "file_data")
    if not url.startswith("data:"):
        return Media(neutral, url=url)
    head, _, data = url[5:].partition(",")
    return Media(neutral, data=data, media_type=head.removesuffix(";base64") or None)


def _call(call: dict[str, Any], place: str) -> ToolCall:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise bad_request(f"'{place}.function' needs a name.", f"{place}.function")
    arguments = function.get("arguments")
    return ToolCall(
        str(call.get("id") or ""),
        function["name"],
        arguments if isinstance(arguments, str) else "{}",
        _signature(call.get("extra_content")),
    )


def _signature(extra: Any) -> str | None:
    """The signature that came with a part, in the place that Gemini's own clients of this dialect know."""
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


def _extra(signature: str) -> dict[str, Any]:
    return {"google": {"thought_signature": signature}}


def _signed(parts: tuple[Part, ...], extra: Any) -> tuple[Part, ...]:
    """The parts of an answer of the past, whose last text has the signature of them all."""
    signature = _signature(extra)
    if signature is None:
        return parts
    last = parts[-1] if parts else None
    if isinstance(last, Text):
        return (*parts[:-1], Text(last.text, signature))
    return (*parts, Text("", signature))


def _tool(function: dict[str, Any]) -> Tool:
    description, parameters, strict = function.get("description"), function.get("parameters"), function.get("strict")
    return Tool(
        name=function["name"],
        description=description if isinstance(description, str) else None,
        parameters=parameters if isinstance(parameters, dict) else {"type": "object", "properties": {}},
        strict=strict if isinstance(strict, bool) else None,
    )


def _choice(choice: Any) -> str | None:
    if not isinstance(choice, dict):
        return choice if isinstance(choice, str) else None
    name = choice.get("function", {}).get("name")
    return name if isinstance(name, str) else None


def answer_of(request: UpstreamRequest, reply: Reply, usage: Usage) -> bytes:
    """A whole answer, JSON."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    if texts := [part.text for part in reply.parts if isinstance(part, Text)]:
        message["content"] = "".join(texts)
    thoughts = [part for part in reply.parts if isinstance(part, Reasoning)]
    if text := "".join(part.text for part in thoughts):
        message["reasoning_content"] = text
    if signed := [_block(part) for part in thoughts if part.signature]:
        message["thinking_blocks"] = signed
    for part in reply.parts:
        if isinstance(part, Text) and part.signature:
            message["extra_content"] = _extra(part.signature)
    if calls := [_written(part) for part in reply.parts if isinstance(part, ToolCall)]:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
    return msgspec.json.encode(_head(request, "chat.completion") | {"choices": [choice], "usage": _usage(usage)})


def _written(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    written: dict[str, Any] = {"id": call.id, "type": "function", "function": function}
    return written | ({"extra_content": _extra(call.signature)} if call.signature else {})


def chunks_of(request: UpstreamRequest, exchange: Exchange) -> Pieces:
    """A stream's chunks, each a complete event; the last of them tells the usage if the client asked for it."""
    head = _head(request, "chat.completion.chunk")
    delta: dict[str, Any] = {"role": "assistant", "content": ""}
    opening: bytes | None = _event(head | {"choices": [_piece(delta)]})
    before, behind = _event(head | {"choices": [_piece({"content": TEXT})]}).split(TEXT_SPELLED)
    thought = ""  # that nobody signed yet
    for event in exchange.neutral_events():
        if opening is not None:  # only now is it known that there is an answer
            yield opening
            opening = None
        if type(event) is Text and event.signature is None:  # nearly all there are
            yield b"%b%b%b" % (before, msgspec.json.encode(event.text), behind)
            continue
        if isinstance(event, Silence):
            yield KEEP_ALIVE
            continue
        said, reason = _delta(event)
        if isinstance(event, Reasoning):
            thought += event.text
            if event.signature:
                block = _block(event if event.redacted else Reasoning(thought, event.signature))
                said, thought = said | {"thinking_blocks": [block]}, ""
        yield _event(head | {"choices": [_piece(said, reason)]})
    if request.include_usage:
        yield _event(head | {"choices": [], "usage": _usage(exchange.conclude())})
    return None


def _delta(event: Text | Reasoning | ToolCallDelta | Finish) -> tuple[dict[str, Any], str | None]:
    """What an event adds to the answer, and the reason if it is complete."""
    match event:
        case Text():
            return {"content": event.text} | (
                {"extra_content": _extra(event.signature)} if event.signature else {}
            ), None
        case Reasoning():
            return {"reasoning_content": event.text} if event.text else {}, None
        case ToolCallDelta():
            function = {"arguments": event.arguments} | ({"name": event.name} if event.name is not None else {})
            call: dict[str, Any] = {"index": event.index, "function": function}
            if event.id is not None:
                call |= {"id": event.id, "type": "function"}
            if event.signature:
                call["extra_content"] = _extra(event.signature)
            return {"tool_calls": [call]}, None
        case Finish():
            return {}, event.reason


def _piece(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _head(request: UpstreamRequest, object: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{new_id()}", "object": object, "created": clock.now_s(), "model": request.model}


def _usage(usage: Usage) -> dict[str, Any]:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    told: dict[str, Any] = {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
    }  # fmt: skip
    written = usage.more.get("cache_write_tokens", 0) + usage.more.get("cache_write_1h_tokens", 0)
    if usage.cached_tokens or written:
        told["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
        if written:
            told["prompt_tokens_details"]["cache_write_tokens"] = written
    if thought := usage.more.get("reasoning_tokens"):
        told["completion_tokens_details"] = {"reasoning_tokens": thought}
    return told


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
