"""`POST /v1/messages`, Anthropic's dialect.

What is not known here passes to an upstream of the same dialect as it came. For any other it is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from app.directory import Model
from app.gateway import metrics
from app.gateway.dialects.base import OF_NEXT, OF_NOTHING, Asked, Dialect, hidden_signature
from app.gateway.dialects.openai import MESSAGE_TOKENS, STEERING, JsonRequest, added, parse, size_of, tier_of
from app.gateway.dialects.openai_chat import FILE_TOKENS, IMAGE_TOKENS, OPENING
from app.gateway.dialects.tool_names import short_name
from app.gateway.envelope import open_envelope
from app.gateway.errors import ApiError, bad_request
from app.metering.pricing import TokenBound
from app.providers.anthropic_usage import usage_object
from app.providers.base import Exchange, Pieces, UpstreamError, UpstreamRequest
from app.providers.conversation import (
    Conversation,
    Event,
    Finish,
    Media,
    Part,
    Reasoning,
    Schema,
    Silence,
    Text,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Turn,
)  # fmt: skip
from app.runtime.ids import new_id
from app.runtime.jsonbody import places_of

Count = Annotated[int, Meta(ge=1, le=2**31)]

# Why an answer ended, in both languages.
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 405: "invalid_request_error", 409: "conflict_error", 413: "request_too_large",
    415: "invalid_request_error", 422: "invalid_request_error", 429: "rate_limit_error", 504: "timeout_error",
    529: "overloaded_error",
}  # fmt: skip
ATTRIBUTION = "x-anthropic-billing-header:"  # what a client's own first block of instructions begins with
CLIENTS_TOOLS = ("custom", None)  # the client runs them
# Members by which the upstream serves dearer, or elsewhere, than the model's price says.
PRICED_APART: dict[str, tuple[Any, ...]] = {
    "speed": (None, "standard"),
    "inference_geo": (None, "global", "not_available"),
    "fallbacks": (None, []),
}
# Members that can be said in other dialects, or that concern this one alone and may go unsaid.
TRANSLATED = frozenset((
    "model", "max_tokens", "messages", "system", "stream", "stop_sequences", "temperature", "top_p", "tools",
    "tool_choice", "thinking", "output_config", "output_format", "metadata",
))  # fmt: skip
# Those that are counted by their names, if they are left out.
NAMED = frozenset((
    "top_k", "service_tier", "container", "inference_geo", "cache_control", "context_management", "mcp_servers", "speed",
    "fallbacks", "diagnostics",
))  # fmt: skip
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
TEXT_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%b}}\n\n'
)
LONGEST_USER = 64
_THOUGHTS = ("thinking", "redacted_thinking")
# Blocks that are nothing but their texts and what is within them.
_TEXTS = frozenset(
    (*_THOUGHTS, "text", "tool_use", "tool_result", "search_result", "tool_reference", "mid_conv_system")
)
_THOUGHTS_SPELLED = (b'"thinking"', b'"redacted_thinking"')


class Said(msgspec.Struct):
    """One message of the conversation. Its blocks are objects with a `type`."""

    role: Annotated[str, Meta(min_length=1, max_length=64)]
    content: str | list[Any]


class MessagesRequest(JsonRequest, kw_only=True):
    """`POST /v1/messages`."""

    max_tokens: Count | None = None
    messages: Annotated[list[Said], Meta(min_length=1)]
    system: str | list[Any] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    tools: list[dict[str, Any]] | None = None
    # Objects, as far as is known; of anything else only an upstream of this dialect can make sense.
    tool_choice: Any = None
    thinking: Any = None
    output_config: Any = None
    output_format: Any = None
    metadata: Any = None

    required: ClassVar[tuple[str, ...]] = ("model", "max_tokens", "messages")
    lists: ClassVar[dict[str, type]] = {"messages": Said}

    def check(self) -> None:
        if self.max_tokens is None and "max_tokens" in self.required:
            raise bad_request("Missing required parameter: 'max_tokens'.", "max_tokens")
        for index, said in enumerate(self.messages):
            if type(said.content) is list:
                _check_blocks(said.content, f"messages[{index}].content")
        if type(self.system) is list:
            _check_blocks(self.system, "system")
        for index, tool in enumerate(self.tools or ()):
            if not isinstance(tool.get("type"), str | None):
                raise bad_request(f"'tools[{index}].type' must be a string.", f"tools[{index}].type")
            if tool.get("type") in CLIENTS_TOOLS and not isinstance(tool.get("name"), str):
                raise bad_request(f"'tools[{index}].name' is missing.", f"tools[{index}].name")

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        framed, unseen = _framed(self, model)
        return TokenBound(
            input=size + added(model) + framed + unseen,
            output=self.max_tokens,
            unseen=unseen,
            priced_apart=priced_apart,
            reads_more=any(tool.get("type") not in CLIENTS_TOOLS for tool in self.tools or ())
            or "mcp_servers" in members
            or "context_management" in members
            or "container" in members,
        )


def _check_blocks(blocks: list[Any], place: str) -> None:
    for index, block in enumerate(blocks):
        if type(block) is not dict or type(block.get("type")) is not str:
            raise bad_request(f"'{place}[{index}]' must be an object with a type.", f"{place}[{index}].type")
        if block["type"] == "text" and type(block.get("text")) is not str:
            raise bad_request(f"'{place}[{index}].text' must be a string.", f"{place}[{index}].text")


def _framed(asked: MessagesRequest, model: Model) -> tuple[int, int]:
    """What messages and media add to the bytes that are sent, tokens; below 0 where the data of media is more than the tokens
    that it can be. And what documents may hold."""
    image = IMAGE_TOKENS if model.image_tokens is None else model.image_tokens
    tokens, unseen = MESSAGE_TOKENS * len(asked.messages), 0
    waiting: list[Any] = [said.content for said in asked.messages if type(said.content) is list]
    while waiting:
        for block in waiting.pop():
            if type(block) is not dict:
                continue
            kind, content, source = block.get("type"), block.get("content"), block.get("source")
            if kind == "text":
                continue
            if type(content) is list:
                waiting.append(content)
            if type(source) is not dict:
                if kind not in _TEXTS:  # it may name a picture in a way that is not known here
                    tokens += image
                continue
            if type(source.get("content")) is list:
                waiting.append(source["content"])
            data = source.get("data")
            size = len(data) if isinstance(data, str) and source.get("type") == "base64" else 0
            media_type = source.get("media_type")
            tokens -= size
            if kind == "image" and (not size or str(media_type).startswith("image/")):
                tokens += image
            elif size or source.get("type") not in ("text", "content"):
                unseen += max(FILE_TOKENS, size) if model.context_window is None else model.context_window
    return tokens, unseen


class AnthropicMessages(Dialect):
    """Anthropic's messages."""

    name: ClassVar[str] = "anthropic_messages"
    streams_events: ClassVar[bool] = True
    end: ClassVar[bytes] = b""  # `message_stop` is an event of the stream
    id_headers: ClassVar[tuple[str, ...]] = ("request-id", "x-request-id")
    headers: ClassVar[tuple[str, ...]] = ("anthropic-version", "anthropic-beta")
    answers_as_asked: ClassVar[bool] = True  # clients drop their thoughts if it differs
    no_model: ClassVar[int] = 403
    budget_stop: ClassVar[int | None] = 429
    request: ClassVar[type[MessagesRequest]] = MessagesRequest
    replaced: ClassVar[tuple[str, ...]] = ("model", "max_tokens")  # members of which an upstream gets others

    def read(self, body: bytes) -> Asked:
        members, values = open_envelope(body)
        checked = parse(self.request, values, members)
        steers = any(name in members for name in STEERING)
        raw = None if steers else places_of(body, members, *self.replaced)
        for name in (*STEERING, "max_tokens"):
            members.pop(name, None)
        apart = next((name for name, usual in PRICED_APART.items() if values.get(name) not in usual), None)
        tier = tier_of(values)
        if apart == "speed" and isinstance(values["speed"], str):
            apart, tier = None, values["speed"]  # a price may have it
        return Asked(checked, members, size_of(body), apart, tier, raw=raw)

    def error(self, error: ApiError, request_id: str) -> bytes:
        if error.original is not None and error.original[0] == self.name:
            return error.original[1]
        kind = "billing_error" if error.code == "insufficient_quota" else ERROR_TYPES.get(error.status, "api_error")
        return _error(kind, error.message, request_id)

    def cut(
        self, message: str, error: UpstreamError | ApiError | None = None, sent: tuple[bytes, bytes] = (b"", b"")
    ) -> bytes:
        original = None if error is None else error.original
        if original is not None and original[0] == self.name and b"\n" not in original[1]:
            return b"event: error\ndata: " + original[1] + b"\n\n"
        return b"event: error\ndata: " + _error("api_error", message) + b"\n\n"

    def conversation_id(self, request: UpstreamRequest, session: str) -> str:
        return f"session {session}" if session else _opening(request.parsed)

    def is_bound(self, request: UpstreamRequest) -> bool:
        raw = bytes(request.members.get("messages", b""))
        return any(name in raw for name in _THOUGHTS_SPELLED)

    def leave_home(self, request: UpstreamRequest) -> None:
        if not self.is_bound(request):
            return
        kept = []
        for message in msgspec.json.decode(request.members["messages"]):
            if type(message["content"]) is list:
                message["content"] = [block for block in message["content"] if block["type"] not in _THOUGHTS]
            if message["content"]:
                kept.append(message)
        request.members = request.members | {"messages": msgspec.json.encode(kept)}
        request.raw = None

    def conversation(self, request: UpstreamRequest) -> Conversation:
        asked: MessagesRequest = request.parsed
        reading = _Reading()
        turns = []
        if asked.system:
            turns.append(Turn("system", tuple(reading.parts(_without_attribution(asked.system)))))
        for index, said in enumerate(asked.messages):
            if said.role not in ("user", "assistant", "system"):
                raise bad_request(
                    f"The provider of '{request.model}' does not know the role '{said.role[:64]}'.",
                    f"messages[{index}].role",
                )
            turns.append(Turn(said.role, tuple(reading.parts(said.content))))  # type: ignore[arg-type]
        tools = []
        for tool in asked.tools or ():
            if tool.get("type") in CLIENTS_TOOLS:
                tools.append(_tool(tool))
            else:
                reading.dropped.add("tools")
        choice = _choice(asked.tool_choice)
        if choice is not None and choice not in ("auto", "none", "required"):
            choice = short_name(choice)
            if all(tool.name != choice for tool in tools):
                raise bad_request(
                    f"The provider of '{request.model}' does not have the tool that 'tool_choice' names.", "tool_choice"
                )
        for name, raw in request.members.items():
            if name not in TRANSLATED and not (name == "top_k" and name in request.takes) and raw != b"null":
                reading.dropped.add(name if name in NAMED else "other")
        if "anthropic-beta" in request.headers:
            reading.dropped.add("betas")
        for what in reading.dropped:
            metrics.count_dropped(self.name, what)
        return Conversation(
            turns=tuple(turn for turn in turns if turn.parts),
            tools=tuple(tools),
            choice=choice if tools else None,
            parallel_calls=False if _object(asked.tool_choice).get("disable_parallel_tool_use") is True else None,
            stop=tuple(asked.stop_sequences or ()),
            temperature=asked.temperature,
            top_p=asked.top_p,
            user=_user(asked.metadata),
            effort=_effort(asked),
            schema=_schema(asked),
            more={"top_k": asked.top_k} if asked.top_k is not None and "top_k" in request.takes else {},
        )

    def answer(self, request: UpstreamRequest, exchange: Exchange) -> bytes:
        names = _names(request)
        reply = exchange.reply()
        blocks = [block for part in reply.parts for block in _blocks_of(part, names)]
        calls = any(isinstance(part, ToolCall) for part in reply.parts)
        return msgspec.json.encode(
            _message(request) | {
                "content": blocks,
                "stop_reason": "tool_use" if calls and reply.finish == "stop" else STOP_REASONS[reply.finish],
                "usage": usage_object(exchange.conclude()),
            }
        )  # fmt: skip

    def events(self, request: UpstreamRequest, exchange: Exchange) -> Pieces:
        blocks = _Blocks(_names(request))
        reason = "end_turn"
        head = b""
        for event in exchange.neutral_events():
            if more := blocks.goes_on(event):
                yield more
                continue
            if not blocks.began:  # only now is it known that there is an answer
                usage = usage_object(exchange.usage)
                message = _message(request) | {"content": [], "stop_reason": None, "usage": usage}
                head = _event("message_start", {"message": message})
            if isinstance(event, Finish):
                reason = STOP_REASONS[event.reason]
                break
            blocks.began = True
            said = PING if isinstance(event, Silence) else b"".join(blocks.take(event))
            if piece := head + said:
                yield piece
            head = b""
        closing = b"".join(blocks.close())
        if blocks.calls and reason == "end_turn":
            reason = "tool_use"
        delta = {"stop_reason": reason, "stop_sequence": None}
        usage = usage_object(exchange.conclude())
        yield head + closing + _event("message_delta", {"delta": delta, "usage": usage})
        return _event("message_stop", {})


class _Blocks:
    """The blocks of a stream, opened in the order of their indexes, one at a time.

    Pieces of several calls may come in turns: what is told of a call while another is open waits until that is closed.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.began = False
        self.calls = 0
        self._names = names
        self._index = -1
        self._open: object = None  # what the open block is: a type of event, or the index of a call
        self._arguments: list[str] = []  # of the call that is open
        self._waiting: dict[int, list[ToolCallDelta]] = {}  # by call

    def take(self, event: Event) -> Iterator[bytes]:
        match event:
            case Text(signature=str(signature)):
                yield from self._sign(signature, event.text)
                if event.text:
                    yield from self._say(event.text)
                    yield from self.close()
            case Text():
                yield from self._say(event.text)
            case Reasoning(redacted=True):
                yield from self._enter(event, {"type": "redacted_thinking", "data": event.signature or ""})
                yield from self.close()
            case Reasoning():
                yield from self._enter(Reasoning, {"type": "thinking", "thinking": "", "signature": ""})
                if event.text:
                    yield self._delta({"type": "thinking_delta", "thinking": event.text})
                if event.signature:
                    yield self._delta({"type": "signature_delta", "signature": event.signature})
            case ToolCallDelta():
                is_other = isinstance(self._open, int) and self._open != event.index
                if is_other and (self._waiting or not _is_whole("".join(self._arguments))):
                    self._waiting.setdefault(event.index, []).append(event)
                else:
                    yield from self._call(event)

    def close(self) -> Iterator[bytes]:
        """Close the open block, and say what waits."""
        yield from self._close()
        waiting, self._waiting = self._waiting, {}
        for pieces in waiting.values():
            for piece in pieces:
                yield from self._call(piece)
            yield from self._close()

    def _say(self, text: str) -> Iterator[bytes]:
        yield from self._enter(Text, {"type": "text", "text": ""})
        yield self._text(text)

    def _text(self, text: str) -> bytes:
        return TEXT_DELTA % (self._index, msgspec.json.encode(text))

    def goes_on(self, event: Event) -> bytes | None:
        """A piece of the text that is open, which nearly all events are; None for any other."""
        is_more = self._open is Text and type(event) is Text and event.signature is None
        return self._text(event.text) if is_more else None  # type: ignore[union-attr]

    def _sign(self, signature: str, signed: str) -> Iterator[bytes]:
        """Keep the signature of what follows, or of nothing."""
        yield from self._enter(Reasoning, {"type": "thinking", "thinking": "", "signature": ""})
        yield self._delta({"type": "signature_delta", "signature": hidden_signature(signature, signed)})
        yield from self._close()

    def _call(self, event: ToolCallDelta) -> Iterator[bytes]:
        if self._open != event.index:
            if event.signature:
                yield from self._sign(event.signature, event.name or "")
            yield from self._close()
            name = event.name or ""
            start = {"type": "tool_use", "id": event.id or f"toolu_{new_id()}", "name": self._names.get(name, name)}
            yield self._start(event.index, start | {"input": {}})
            self.calls += 1
        if event.arguments:
            self._arguments.append(event.arguments)
            yield self._delta({"type": "input_json_delta", "partial_json": event.arguments})

    def _enter(self, what: object, block: dict[str, Any]) -> Iterator[bytes]:
        if self._open != what:
            yield from self.close()
            yield self._start(what, block)

    def _start(self, what: object, block: dict[str, Any]) -> bytes:
        self._index, self._open = self._index + 1, what
        self._arguments.clear()
        return _event("content_block_start", {"index": self._index, "content_block": block})

    def _close(self) -> Iterator[bytes]:
        if self._open is not None:
            yield _event("content_block_stop", {"index": self._index})
            self._open = None

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})


def _is_whole(arguments: str) -> bool:
    """Whether these are all of a call's arguments."""
    try:
        msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return False
    return True


class _Reading:
    """Blocks as parts; `dropped` has what there is no word for."""

    def __init__(self) -> None:
        self.dropped: set[str] = set()
        self._signature: str | None = None  # of the next part

    def _signed(self) -> str | None:
        signature, self._signature = self._signature, None
        return signature

    def parts(self, content: Any) -> Iterator[Part]:
        self._signature = None
        if isinstance(content, str):
            if content:
                yield Text(content)
            return
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict):
                yield from self._of_block(block)

    def _of_block(self, block: dict[str, Any]) -> Iterator[Part]:
        match block.get("type"):
            case "text":
                yield Text(_text(block, "text"), self._signed())
            case "thinking":
                yield from self._thought(_text(block, "thinking"), _text(block, "signature"))
            case "redacted_thinking":
                yield Reasoning("", _text(block, "data"), redacted=True)
            case "image" | "document" as kind:
                yield from self._media(block, kind)
            case "search_result":
                head = f"{_text(block, 'title')}\n{_text(block, 'source')}\n"
                yield Text(
                    head + "\n".join(part.text for part in self.parts(block.get("content")) if type(part) is Text)
                )
            case "tool_use":
                arguments = msgspec.json.encode(block.get("input") or {}).decode()
                yield ToolCall(_text(block, "id"), short_name(_text(block, "name")), arguments, self._signed())
            case "tool_result":
                inner = tuple(part for part in self.parts(block.get("content")) if isinstance(part, Text | Media))
                yield ToolResult(_text(block, "tool_use_id"), inner, block.get("is_error") is True)
            case "mid_conv_system":
                yield from self.parts(block.get("content") or block.get("text"))
            case _:
                self.dropped.add("blocks")

    def _thought(self, text: str, signature: str) -> Iterator[Part]:
        if not signature.startswith((OF_NEXT, OF_NOTHING)):
            yield Reasoning(text, signature or None)
            return
        if text:
            yield Reasoning(text)
        kept = signature[len(OF_NEXT) :]
        if signature.startswith(OF_NEXT):
            self._signature = kept
        else:
            yield Text("", kept)

    def _media(self, block: dict[str, Any], kind: Any) -> Iterator[Part]:
        source = block.get("source")
        source = source if isinstance(source, dict) else {}
        match source.get("type"):
            case "url":
                yield Media(kind, url=_text(source, "url"))
            case "base64":
                yield Media(kind, data=_text(source, "data"), media_type=_text(source, "media_type") or None)
            case "text":
                yield Text(_text(source, "data"))
            case "content":
                yield from self.parts(source.get("content"))
            case _:
                self.dropped.add("blocks")


def _without_attribution(system: str | list[Any]) -> str | list[Any]:
    """Instructions without a client's own note of what it is, which differs from request to request."""
    if isinstance(system, list) and system and _text(system[0], "text").startswith(ATTRIBUTION):
        return system[1:]
    return system


def _opening(asked: MessagesRequest) -> str:
    """How a conversation begins: its instructions and its first question, which stay while it grows."""
    system = _without_attribution(asked.system or "")
    texts = [system] if isinstance(system, str) else [_text(block, "text") for block in system]
    first = asked.messages[0].content
    texts += [first] if isinstance(first, str) else [_text(block, "text") for block in first]
    return "\n".join(f"{len(text)} {text[:OPENING]}" for text in texts)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _user(metadata: Any) -> str | None:
    """Whom a request is for. Longer texts tell of devices and sessions, and are nobody else's business."""
    user = _object(metadata).get("user_id")
    return user if isinstance(user, str) and 0 < len(user) <= LONGEST_USER and user[0] != "{" else None


def _effort(asked: MessagesRequest) -> str | None:
    config, thinking = _object(asked.output_config), _object(asked.thinking)
    if thinking.get("type") == "disabled":
        return "none"
    if isinstance(config.get("effort"), str):
        return str(config["effort"])
    budget = thinking.get("budget_tokens")
    if thinking.get("type") != "enabled" or type(budget) is not int:
        return None
    return "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"


def _schema(asked: MessagesRequest) -> Schema | None:
    for format in (_object(asked.output_config).get("format"), asked.output_format):
        if isinstance(format, dict) and format.get("type") == "json_schema" and isinstance(format.get("schema"), dict):
            return Schema(format["schema"])
    return None


def _tool(tool: dict[str, Any]) -> Tool:
    schema, description, strict = tool.get("input_schema"), tool.get("description"), tool.get("strict")
    return Tool(
        short_name(tool["name"]),
        description if isinstance(description, str) else None,
        schema if isinstance(schema, dict) else {"type": "object", "properties": {}},
        strict if isinstance(strict, bool) else None,
    )


def _names(request: UpstreamRequest) -> dict[str, str]:
    """The client's names of its tools, by those that were sent, where they differ."""
    names = [tool["name"] for tool in request.parsed.tools or () if tool.get("type") in CLIENTS_TOOLS]
    return {short: name for name in names if (short := short_name(name)) != name}


def _choice(choice: Any) -> str | None:
    choice = _object(choice)
    match choice.get("type"):
        case "any":
            return "required"
        case "tool":
            name = choice.get("name")
            return name if isinstance(name, str) else None
        case "auto" | "none" as word:
            return str(word)
    return None


def _blocks_of(part: Text | Reasoning | ToolCall, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A part of an answer as its block, behind the thoughts that keep its signature."""
    signed = "" if isinstance(part, Reasoning) else part.text if isinstance(part, Text) else part.name
    if not isinstance(part, Reasoning) and part.signature:
        yield {"type": "thinking", "thinking": "", "signature": hidden_signature(part.signature, signed)}
    if not isinstance(part, Text) or part.text:
        yield _block(part, names)


def _block(part: Text | Reasoning | ToolCall, names: dict[str, str]) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Reasoning(redacted=True):
            return {"type": "redacted_thinking", "data": part.signature or ""}
        case Reasoning():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
        case ToolCall():
            try:
                arguments = msgspec.json.decode(part.arguments)
            except msgspec.DecodeError:
                arguments = None
            return {
                "type": "tool_use",
                "id": part.id or f"toolu_{new_id()}",
                "name": names.get(part.name, part.name),
                "input": arguments if isinstance(arguments, dict) else {},
            }


def _message(request: UpstreamRequest) -> dict[str, Any]:
    head = {"id": f"msg_{new_id()}", "type": "message", "role": "assistant", "model": request.model}
    return head | {"stop_sequence": None}


def _text(value: Any, name: str) -> str:
    text = value.get(name) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name} | value))


def _error(kind: str, message: str, request_id: str | None = None) -> bytes:
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return msgspec.json.encode(body if request_id is None else body | {"request_id": request_id})


DIALECT = AnthropicMessages()
