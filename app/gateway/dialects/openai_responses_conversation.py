"""OpenAI's Responses in the neutral language: requests are read from it.

Tools of all sorts that the client runs become functions, whose names lead back to what the client knows (`tools_of`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from app.gateway import metrics
from app.gateway.dialects.base import OF_NEXT, OF_NOTHING
from app.gateway.dialects.tool_names import short_name
from app.gateway.errors import ApiError, bad_request
from app.providers.base import UpstreamRequest
from app.providers.conversation import (
    Conversation,
    Media,
    Part,
    Reasoning,
    Schema,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)  # fmt: skip
from app.providers.openai_responses import SEALED, SPEAKS

# Members that can be said in other dialects, or that concern this one alone and may go unsaid.
TRANSLATED = frozenset((
    "model", "input", "instructions", "stream", "temperature", "top_p", "user", "tools", "tool_choice",
    "parallel_tool_calls", "text", "reasoning", "store", "include", "metadata", "stream_options", "prompt_cache_key",
    "client_metadata", "background", "conversation", "previous_response_id", "prompt",
))  # fmt: skip
# Those that are counted by their names, if they are left out.
NAMED = frozenset((
    "max_tool_calls", "top_logprobs", "truncation", "context_management", "prompt_cache_options",
    "prompt_cache_retention", "safety_identifier", "moderation", "service_tier",
))  # fmt: skip
# What stands elsewhere and can't be fetched from there.
ELSEWHERE = ("previous_response_id", "prompt")
# Tools that upstreams of this dialect run, as far as they are known; a choice of one can't be kept elsewhere.
HOSTED = (
    "web_search", "file_search", "computer", "code_interpreter", "image_generation", "mcp", "local_shell", "shell",
    "apply_patch", "tool_search", "programmatic_tool_calling",
)  # fmt: skip
REDACTED = f"{SEALED}redacted:"
RAW_INPUT = "input"  # the only parameter of a function that stands for a tool whose input is any text
_RAW: dict[str, Any] = {
    "type": "object", "properties": {RAW_INPUT: {"type": "string"}}, "required": [RAW_INPUT],
    "additionalProperties": False,
}  # fmt: skip
_ANY: dict[str, Any] = {"type": "object", "properties": {}}
_ROLES = {"assistant": "assistant", "system": "system", "developer": "system"}


class Known(NamedTuple):
    """A tool as the client knows it; `is_raw` where its input is a text instead of arguments."""

    name: str
    namespace: str | None = None
    is_raw: bool = False


class Tools:
    """The tools of a request that its client runs, by the names that go to upstreams of other dialects."""

    def __init__(self) -> None:
        self.sent: dict[str, Tool] = {}
        self.known: dict[str, Known] = {}
        self.left_out: set[str] = set()  # types of others
        self._names: dict[tuple[str | None, str], str] = {}

    def add(self, tool: Any, namespace: str | None = None) -> None:
        kind, name = _text(tool, "type"), _text(tool, "name")
        if kind == "namespace" and namespace is None:
            members = tool.get("tools")
            for member in members if isinstance(members, list) else ():
                self.add(member, name)
        elif kind in ("function", "custom") and name:
            if (namespace, name) in self._names:
                return
            sent = _joined(namespace, name)
            if sent in self.sent:
                sent = short_name(f"{namespace} {name}", is_taken=True)
            self._names[namespace, name] = sent
            self.known[sent] = Known(name, namespace, kind == "custom")
            self.sent[sent] = _tool(tool, sent)
        else:
            self.left_out.add(kind)

    def name_of(self, namespace: str | None, name: str) -> str:
        """The name that is sent for a tool, also for one that was there in the past only."""
        return self._names.get((namespace, name)) or _joined(namespace, name)


def tools_in(request: UpstreamRequest) -> Tools:
    """All tools of a request, for it and for its answer, looked for once."""
    if request.noted is None:
        request.noted = tools_of(request.parsed)
    tools: Tools = request.noted
    return tools


def tools_of(asked: Any) -> Tools:
    """All tools of a request, also those that come within its input."""
    found = Tools()
    for tool in asked.tools or ():
        found.add(tool)
    for item in asked.input if isinstance(asked.input, list) else ():
        if item.get("type") == "additional_tools":
            more = item.get("tools")
            for tool in more if isinstance(more, list) else ():
                found.add(tool)
    return found


def conversation_of(request: UpstreamRequest) -> Conversation:
    """A checked request in the neutral language. Raises `ApiError` 400 for what can't be said in it."""
    asked = request.parsed
    for name in ELSEWHERE:
        if getattr(asked, name) is not None:
            raise _elsewhere(request, name)
    tools = tools_in(request)
    reading = _Reading(request, tools)
    turns = list(reading.turns(asked))
    if tools.left_out:
        reading.dropped.add("tools")
    choice, sent = _choice(request, tools)
    more = _more(asked, request.takes)
    effort = _object(asked.reasoning).get("effort")
    if _object(asked.text).get("verbosity") is not None:
        reading.dropped.add("verbosity")
    for name, raw in request.members.items():
        if name not in TRANSLATED and name not in request.takes and raw != b"null":
            reading.dropped.add(name if name in NAMED else "other")
    for what in reading.dropped:
        metrics.count_dropped(SPEAKS, what)
    return Conversation(
        turns=tuple(turns),
        tools=tuple(sent),
        choice=choice if sent else None,
        parallel_calls=asked.parallel_tool_calls,
        temperature=asked.temperature,
        top_p=asked.top_p,
        user=asked.user,
        effort=effort if isinstance(effort, str) else None,
        schema=None if "json_object" in more else _schema(asked.text),
        more=more,
    )


def _more(asked: Any, takes: frozenset[str]) -> dict[str, Any]:
    """What this upstream takes besides, as far as the client gave it."""
    more: dict[str, Any] = {}
    if "json_object" in takes and _object(_object(asked.text).get("format")).get("type") == "json_object":
        more["json_object"] = True
    if "service_tier" in takes and isinstance(asked.service_tier, str):
        more["service_tier"] = asked.service_tier
    return more


def _elsewhere(request: UpstreamRequest, name: str) -> ApiError:
    return bad_request(
        f"The provider of '{request.model}' has nothing that '{name}' could name. Send the conversation in 'input'.",
        name,
    )


class _Reading:
    """Items as turns; `dropped` has what there is no word for."""

    def __init__(self, request: UpstreamRequest, tools: Tools) -> None:
        self.dropped: set[str] = set()
        self._request = request
        self._tools = tools
        self._signature: str | None = None  # of the next part

    def _signed(self) -> str | None:
        signature, self._signature = self._signature, None
        return signature

    def turns(self, asked: Any) -> Iterator[Turn]:
        """What the assistant said and called without a break is one turn, and so are the results of its calls."""
        if isinstance(asked.instructions, str):
            yield Turn("system", (Text(asked.instructions),))
        items = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else asked.input or []
        if isinstance(asked.instructions, list):
            items = [*(item for item in asked.instructions if isinstance(item, dict)), *items]
        gathered: list[Part] = []
        kind = ""  # of what is gathered
        for index, item in enumerate(items):
            role, parts = self._item(item, index)
            if not parts:
                continue
            if role != kind or role not in ("assistant", "result"):
                if gathered:
                    yield _turn(kind, gathered)
                gathered, kind = [], role
            gathered += parts
        if gathered:
            yield _turn(kind, gathered)

    def _item(self, item: dict[str, Any], index: int) -> tuple[str, list[Part]]:
        kind = item.get("type")
        match kind:
            case "message" | None:
                content = item.get("content")
                role = _ROLES.get(_text(item, "role"), "user")
                if type(content) is str:  # nearly all there are
                    return role, [Text(content)] if content else []
                return role, list(self._parts(content))
            case "function_call" | "custom_tool_call":
                name = self._tools.name_of(_text(item, "namespace") or None, _text(item, "name"))
                arguments = _text(item, "arguments") or "{}"
                if kind == "custom_tool_call":
                    arguments = msgspec.json.encode({RAW_INPUT: _text(item, "input")}).decode()
                return "assistant", [ToolCall(_text(item, "call_id"), name, arguments, self._signed())]
            case "function_call_output" | "custom_tool_call_output":
                inner = tuple(part for part in self._parts(item.get("output")) if isinstance(part, Text | Media))
                return "result", [ToolResult(_text(item, "call_id"), inner)]
            case "reasoning":
                return "assistant", list(self._thought(item))
            case "item_reference":
                raise _elsewhere(self._request, f"input[{index}]")
            case "additional_tools":
                return "", []  # see `tools_of`
        self.dropped.add("items")
        return "", []

    def _thought(self, item: dict[str, Any]) -> Iterator[Part]:
        """What was thought before, with the signature of its upstream if that is not of this dialect; or the signature of what
        follows."""
        sealed = _text(item, "encrypted_content")
        signature = sealed.removeprefix(SEALED) if sealed.startswith(SEALED) else None
        text = _joined_texts(item.get("summary")) or _joined_texts(item.get("content"))
        match signature:
            case str() if sealed.startswith(REDACTED):
                yield Reasoning("", sealed.removeprefix(REDACTED), redacted=True)
            case str() if signature.startswith(OF_NEXT):
                self._signature = signature.removeprefix(OF_NEXT)
            case str() if signature.startswith(OF_NOTHING):
                yield Text("", signature.removeprefix(OF_NOTHING))
            case _ if text or signature:
                yield Reasoning(text, signature)

    def _parts(self, content: Any) -> Iterator[Part]:
        if isinstance(content, str):
            if content:
                yield Text(content)
            return
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            found: Part | None = None
            if kind in ("input_text", "output_text", "text", "refusal"):
                found = Text(_text(part, "refusal" if kind == "refusal" else "text"), self._signed())
            elif kind == "input_image":
                found = _media("image", part.get("image_url"))
            elif kind == "input_file":
                found = _media("document", part.get("file_data") or part.get("file_url"), "application/pdf")
            elif kind == "input_audio":
                sound = _object(part.get("input_audio"))
                if data := _text(sound, "data"):
                    found = Media("audio", data=data, media_type=f"audio/{_text(sound, 'format') or 'wav'}")
            if found is None:
                self.dropped.add("parts")
            elif found != Text(""):
                yield found


def _turn(kind: str, parts: list[Part]) -> Turn:
    return Turn("user" if kind == "result" else kind, tuple(parts))  # type: ignore[arg-type]


def _joined_texts(parts: Any) -> str:
    texts = [_text(part, "text") for part in parts] if isinstance(parts, list) else []
    return "\n\n".join(text for text in texts if text)


def _media(kind: Any, value: Any, usual: str | None = None) -> Media | None:
    """What stands at an address or in a `data:` URL, or is base64 by itself; None for what the upstream alone has."""
    if not isinstance(value, str) or not value:
        return None
    if value.startswith("data:"):
        head, _, data = value[5:].partition(",")
        return Media(kind, data=data, media_type=head.removesuffix(";base64") or usual)
    return Media(kind, url=value) if "://" in value[:16] else Media(kind, data=value, media_type=usual)


def _joined(namespace: str | None, name: str) -> str:
    if namespace is None:
        return short_name(name)
    return short_name(f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}")


def _tool(tool: dict[str, Any], sent: str) -> Tool:
    description = _text(tool, "description")
    if tool["type"] == "custom":
        format = _object(tool.get("format"))
        if definition := _text(format, "definition"):
            description += f"\n\nThe input must follow this {_text(format, 'syntax')} grammar:\n{definition}"
        return Tool(sent, description or None, _RAW)
    parameters, strict = tool.get("parameters"), tool.get("strict")
    return Tool(
        sent,
        description or None,
        parameters if isinstance(parameters, dict) else _ANY,
        strict if isinstance(strict, bool) else None,
    )


def _choice(request: UpstreamRequest, tools: Tools) -> tuple[str | None, list[Tool]]:
    """The choice of a tool, and the tools among which it is. Raises `ApiError` 400 if it insists on one that is not there."""
    choice, sent = request.parsed.tool_choice, list(tools.sent.values())
    kind = _text(choice, "type")
    if kind == "allowed_tools":
        allowed = choice.get("tools")
        names = {_named(tools, one) for one in allowed if isinstance(one, dict)} if isinstance(allowed, list) else set()
        return _text(choice, "mode") or "auto", [tool for tool in sent if tool.name in names]
    if kind in ("function", "custom"):
        name = _named(tools, choice)
        if name in tools.sent:
            return name, sent
    elif kind:
        if kind not in tools.left_out and not kind.startswith(HOSTED):
            metrics.count_dropped(SPEAKS, "tool_choice")
            return None, sent
    elif choice != "required" or sent or not tools.left_out:
        return choice if choice in ("auto", "none", "required") else None, sent
    raise bad_request(
        f"The provider of '{request.model}' does not have the tool that 'tool_choice' insists on.", "tool_choice"
    )


def _named(tools: Tools, choice: dict[str, Any]) -> str:
    return tools.name_of(_text(choice, "namespace") or None, _text(choice, "name"))


def _schema(text: Any) -> Schema | None:
    """What the answer is to look like; any object, where no more is said of it."""
    format = _object(_object(text).get("format"))
    name, strict = _text(format, "name") or "answer", format.get("strict")
    match format.get("type"):
        case "json_schema":
            schema = format.get("schema")
            return Schema(
                schema if isinstance(schema, dict) else {"type": "object"},
                name,
                strict if isinstance(strict, bool) else None,
            )
        case "json_object":
            return Schema({"type": "object"}, strict=False)
    return None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any, name: str) -> str:
    text = value.get(name) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""
