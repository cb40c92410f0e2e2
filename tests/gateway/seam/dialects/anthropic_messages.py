"""`POST /v1/messages`, Anthropic's dialect: text, pictures, tools, errors and cuts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from app.directory import Model
from app.gateway.dialects.base import Asked, Dialect
from app.gateway.dialects.openai import MESSAGE_TOKENS, STEERING, JsonRequest, added, parse, priced_apart, size_of
from app.gateway.envelope import open_envelope
from app.gateway.errors import ApiError, bad_request
from app.metering.pricing import TokenBound
from app.providers.base import Exchange, UpstreamRequest, Usage
from app.providers.conversation import (
    Conversation,
    Event,
    Finish,
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
from app.runtime.ids import new_id

Count = Annotated[int, Meta(ge=1, le=2**31)]

# Why an answer ended, in both languages.
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 409: "conflict_error", 413: "request_too_large", 429: "rate_limit_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


class Said(msgspec.Struct):
    """One message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class MessagesRequest(JsonRequest, kw_only=True):
    """`POST /v1/messages`."""

    max_tokens: Count
    messages: Annotated[list[Said], Meta(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None

    required: ClassVar[tuple[str, ...]] = ("model", "max_tokens", "messages")
    lists: ClassVar[dict[str, type]] = {"messages": Said}

    def check(self) -> None:
        for index, tool in enumerate(self.tools or ()):
            if not isinstance(tool.get("name"), str):
                raise bad_request(f"'tools[{index}].name' is missing.", f"tools[{index}].name")
            tool.setdefault("type", "custom")  # what has no type is run by the client

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        return TokenBound(
            input=size + added(model) + MESSAGE_TOKENS * len(self.messages),
            output=self.max_tokens,
            priced_apart=priced_apart,
        )


class AnthropicMessages(Dialect):
    """Anthropic's messages."""

    name: ClassVar[str] = "anthropic_messages"
    end: ClassVar[bytes] = b""  # `message_stop` is an event of the stream
    id_headers: ClassVar[tuple[str, ...]] = ("x-request-id", "request-id")

    def read(self, body: bytes) -> Asked:
        members, values = open_envelope(body)
        checked = parse(MessagesRequest, values, members)
        for name in (*STEERING, "max_tokens"):
            members.pop(name, None)
        return Asked(checked, members, size_of(body), priced_apart(checked, values))

    def error(self, error: ApiError, request_id: str) -> bytes:
        kind = "billing_error" if error.code == "insufficient_quota" else ERROR_TYPES.get(error.status, "api_error")
        return _error(kind, error.message, request_id)

    def cut(self, message: str) -> bytes:
        return b"event: error\ndata: " + _error("api_error", message) + b"\n\n"

    def conversation(self, request: UpstreamRequest) -> Conversation:
        asked = request.parsed
        turns = [Turn("system", tuple(_parts(asked.system)))] if asked.system else []
        turns += [Turn(said.role, tuple(_parts(said.content))) for said in asked.messages]
        return Conversation(
            turns=tuple(turns),
            tools=tuple(
                Tool(tool["name"], tool.get("description"), tool.get("input_schema") or {})
                for tool in asked.tools or ()
                if tool["type"] == "custom"
            ),
            choice=_choice(asked.tool_choice),
            parallel_calls=False if (asked.tool_choice or {}).get("disable_parallel_tool_use") else None,
            stop=tuple(asked.stop_sequences or ()),
            temperature=asked.temperature,
            top_p=asked.top_p,
        )

    def answer(self, request: UpstreamRequest, exchange: Exchange) -> bytes:
        reply = exchange.reply()
        return msgspec.json.encode(
            _message(request) | {
                "content": [_block(part) for part in reply.parts],
                "stop_reason": STOP_REASONS[reply.finish],
                "usage": _usage(exchange.conclude()),
            }
        )  # fmt: skip

    def events(self, request: UpstreamRequest, exchange: Exchange) -> Iterator[bytes]:
        message = _message(request) | {"content": [], "stop_reason": None, "usage": _usage(exchange.usage)}
        yield _event("message_start", {"message": message})
        blocks, reason = _Blocks(), "end_turn"
        for event in exchange.neutral_events():
            if isinstance(event, Finish):
                reason = STOP_REASONS[event.reason]
            else:
                yield from blocks.take(event)
        yield from blocks.close()
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield _event("message_delta", {"delta": delta, "usage": _usage(exchange.conclude())})
        yield _event("message_stop", {})


class _Blocks:
    """The blocks of a stream, opened in the order of their indexes, one at a time."""

    def __init__(self) -> None:
        self._index = -1
        self._open: object = None  # what the open block is: a type of event, or the index of a call

    def take(self, event: Event) -> Iterator[bytes]:
        match event:
            case Text():
                yield from self._enter(Text, {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": event.text})
            case Reasoning():
                yield from self._enter(Reasoning, {"type": "thinking", "thinking": "", "signature": ""})
                yield self._delta({"type": "thinking_delta", "thinking": event.text})
            case ToolCallDelta():
                start = {
                    "type": "tool_use",
                    "id": event.id or f"toolu_{new_id()}",
                    "name": event.name or "",
                    "input": {},
                }
                yield from self._enter(event.index, start)
                if event.arguments:
                    yield self._delta({"type": "input_json_delta", "partial_json": event.arguments})

    def close(self) -> Iterator[bytes]:
        if self._open is not None:
            yield _event("content_block_stop", {"index": self._index})
            self._open = None

    def _enter(self, what: object, block: dict[str, Any]) -> Iterator[bytes]:
        if self._open != what:
            yield from self.close()
            self._index, self._open = self._index + 1, what
            yield _event("content_block_start", {"index": self._index, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})


def _parts(content: Any) -> Iterator[Part]:
    if isinstance(content, str):
        yield Text(content)
        return
    for block in content or ():
        match block.get("type"):
            case "text":
                yield Text(block.get("text") or "")
            case "thinking":
                yield Reasoning(block.get("thinking") or "", block.get("signature"))
            case "image" | "document" as kind:
                source = block.get("source") or {}
                yield Media(kind, source.get("url"), source.get("data"), source.get("media_type"))
            case "tool_use":
                arguments = msgspec.json.encode(block.get("input") or {}).decode()
                yield ToolCall(block.get("id") or "", block.get("name") or "", arguments)
            case "tool_result":
                inner = tuple(part for part in _parts(block.get("content")) if isinstance(part, Text | Media))
                yield ToolResult(block.get("tool_use_id") or "", inner, bool(block.get("is_error")))


def _choice(choice: dict[str, Any] | None) -> str | None:
    match (choice or {}).get("type"):
        case "any":
            return "required"
        case "tool":
            return (choice or {}).get("name")
        case "auto" | "none" as word:
            return str(word)
    return None


def _block(part: Text | Reasoning | ToolCall) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Reasoning():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": msgspec.json.decode(part.arguments)}


def _message(request: UpstreamRequest) -> dict[str, Any]:
    head = {"id": f"msg_{new_id()}", "type": "message", "role": "assistant", "model": request.model}
    return head | {"stop_sequence": None}


def _usage(usage: Usage) -> dict[str, int]:
    """Cached tokens stand beside the input here, not within it."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name} | value))


def _error(kind: str, message: str, request_id: str | None = None) -> bytes:
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return msgspec.json.encode(body if request_id is None else body | {"request_id": request_id})


DIALECT = AnthropicMessages()
