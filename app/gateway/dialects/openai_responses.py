"""`POST /v1/responses`, OpenAI's Responses, of which nothing is kept here.

What is not known here passes to an upstream of the same dialect as it came. For any other it is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from app.directory import Model
from app.gateway.dialects import openai_responses_conversation, openai_responses_events
from app.gateway.dialects.base import Asked
from app.gateway.dialects.openai import (
    MESSAGE_TOKENS,
    STEERING,
    JsonRequest,
    OpenAIDialect,
    added,
    envelope_of,
    member_priced_apart,
    parse,
    size_of,
    tier_of,
)
from app.gateway.dialects.openai_chat import AUDIO_TOKENS, FILE_TOKENS, IMAGE_TOKENS, OPENING
from app.gateway.envelope import open_envelope
from app.gateway.errors import ApiError, bad_request
from app.metering.pricing import TokenBound
from app.providers import openai_responses
from app.providers.base import Exchange, Pieces, UpstreamError, UpstreamRequest
from app.providers.conversation import Conversation
from app.providers.openai_responses import LIMIT
from app.runtime.agents import Agent
from app.runtime.jsonbody import places_of

Count = Annotated[int, Meta(ge=1, le=2**31)]

CLIENTS_TOOLS = ("function", "custom", "namespace")  # the client runs them
WRAPPED_TOKENS = 200  # what a tool is more where it is written as a function, tokens
TIERS = {"fast": "priority"}  # what is served by another name than it is asked for
# Members of which nothing can be kept here, and the values that ask for nothing.
STATEFUL = {"background": (None, False), "conversation": (None,)}
_ENCRYPTED = b'"encrypted_content"'
# Parts that are nothing but their text.
_TEXTS = frozenset(("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"))
# Where a part has its data, if it does not name an address.
_DATA = {"input_image": "image_url", "computer_screenshot": "image_url", "input_file": "file_data"}
# Clients that show what a status says only after many tries, or never.
_HIDE_REFUSALS = ("codex",)
# Refusals that such a client is to show; trying again would change nothing.
_SHOWN = ("insufficient_quota", "model_not_priced")
TOO_LONG = "context_length_exceeded"
# How upstreams say that, where they have no code for it.
_SAYS_TOO_LONG = re.compile(
    r"prompt is too long|(?:context|input)(?: |_)(?:length|window)|maximum context|too many (?:input )?tokens",
    re.IGNORECASE,
)


class ResponsesRequest(JsonRequest, kw_only=True):
    """`POST /v1/responses`."""

    input: str | list[Any] | None = None
    instructions: str | list[Any] | None = None
    max_output_tokens: Count | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    parallel_tool_calls: bool | None = None
    tools: list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    # Texts and objects, as far as is known; of anything else only an upstream of this dialect can make sense.
    tool_choice: Any = None
    text: Any = None
    reasoning: Any = None
    service_tier: Any = None

    lists: ClassVar[dict[str, type]] = {"tools": dict}

    def check(self) -> None:
        for name, nothing in STATEFUL.items():
            if getattr(self, name) not in nothing:
                raise bad_request(f"'{name}' can't be used here: no answers are kept. Leave it out.", name)
        if self.input is None and self.prompt is None and self.previous_response_id is None:
            raise bad_request("Missing required parameter: 'input'.", "input")
        for index, item in enumerate(self.input if type(self.input) is list else ()):
            if type(item) is not dict or type(item.get("content")) is not str or "type" in item:
                _check_item(item, f"input[{index}]")
        for index, tool in enumerate(self.tools or ()):
            if tool.get("type") != "function" or type(tool.get("name")) is not str:
                _check_tool(tool, f"tools[{index}]")

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        framed, unseen = _framed(self, model)
        others = [kind for tool in _tools_in(self) if (kind := tool.get("type")) != "function"]
        wrapped = WRAPPED_TOKENS * len(others)
        reads_more = any(kind not in CLIENTS_TOOLS for kind in others)
        if self.previous_response_id is not None or self.prompt is not None or _names_more(self):
            unseen += _longest(model)
            reads_more = True
        return TokenBound(
            input=size + added(model) + framed + wrapped + unseen,
            output=self.max_output_tokens,
            unseen=unseen,
            priced_apart=priced_apart,
            reads_more=reads_more or "context_management" in members,
        )


def _tools_in(asked: ResponsesRequest) -> Iterator[dict[str, Any]]:
    """All tools, those within namespaces too."""
    for tool in asked.tools or ():
        yield tool
        inner = tool.get("tools")
        if inner is not None:
            yield from (one for one in inner if isinstance(one, dict)) if isinstance(inner, list) else ()


def _check_item(item: Any, place: str) -> None:
    if type(item) is not dict or not isinstance(item.get("type"), str | None):
        raise bad_request(f"'{place}' must be an object with a type or a role.", place)
    if item.get("type", "message") != "message":
        return
    content = item.get("content")
    if type(content) is str or content is None:
        return
    if type(content) is not list:
        raise bad_request(f"'{place}.content' must be a text or a list of parts.", f"{place}.content")
    for index, part in enumerate(content):
        if type(part) is not dict or type(part.get("type")) is not str:
            where = f"{place}.content[{index}]"
            raise bad_request(f"'{where}' must be an object with a type.", f"{where}.type")


def _check_tool(tool: dict[str, Any], place: str) -> None:
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise bad_request(f"'{place}.type' must be a string.", f"{place}.type")
    if kind in CLIENTS_TOOLS and not isinstance(tool.get("name"), str):
        raise bad_request(f"'{place}.name' is missing.", f"{place}.name")


def _names_more(asked: ResponsesRequest) -> bool:
    """Whether the input names what only the upstream has."""
    items = asked.input if type(asked.input) is list else ()
    return any(item.get("type") == "item_reference" for item in items)


def _longest(model: Model, data: str = "") -> int:
    """The most tokens in what can't be seen here, such as a file with this data."""
    return max(FILE_TOKENS, len(data)) if model.context_window is None else model.context_window


def _framed(asked: ResponsesRequest, model: Model) -> tuple[int, int]:
    """What items and media add to the bytes that are sent, tokens; below 0 where the data of media is more than the tokens
    that it can be. And what files may hold."""
    image = IMAGE_TOKENS if model.image_tokens is None else model.image_tokens
    audio = AUDIO_TOKENS if model.audio_tokens is None else model.audio_tokens
    items = asked.input if type(asked.input) is list else []
    tokens, unseen = MESSAGE_TOKENS * (len(items) + 1), 0
    for item in items:
        for content in (item.get("content"), item.get("output")):
            if content is None or type(content) is str:
                continue
            parts = content if type(content) is list else [content] if type(content) is dict else ()
            for part in parts:
                kind = part.get("type") if type(part) is dict else "text"
                if kind in _TEXTS:
                    continue
                data = _data_of(part, kind)
                tokens -= len(data)
                if kind == "input_audio":
                    tokens += audio
                elif kind == "input_file" or data and not data.startswith("data:image/"):
                    unseen += _longest(model, data)
                else:  # it may name a picture in a way that is not known here
                    tokens += image
    return tokens, unseen


def _data_of(part: dict[str, Any], kind: Any) -> str:
    """The data that a part carries within it; empty for one that names an address or a file."""
    if kind == "input_audio":
        sound = part.get("input_audio")
        value = sound.get("data") if isinstance(sound, dict) else None
        return value if isinstance(value, str) else ""
    value = part.get(_DATA.get(kind, ""))
    if not isinstance(value, str):
        return ""
    return value if kind == "input_file" or value.startswith("data:") else ""


class OpenAIResponses(OpenAIDialect):
    """OpenAI's Responses."""

    name: ClassVar[str] = openai_responses.SPEAKS
    end: ClassVar[bytes] = b""  # `response.completed` is an event of the stream
    headers: ClassVar[tuple[str, ...]] = ("openai-beta",)
    budget_stop: ClassVar[int | None] = 429
    request: ClassVar[type[JsonRequest]] = ResponsesRequest

    def read(self, body: bytes) -> Asked:
        members, values = open_envelope(body)
        checked = parse(self.request, values, members)
        steers = any(name in members for name in STEERING)
        raw = None if steers else places_of(body, members, *(name for name in ("model", LIMIT) if name in members))
        for name in (*STEERING, LIMIT):
            members.pop(name, None)
        tier = tier_of(values)
        return Asked(checked, members, size_of(body), member_priced_apart(values), TIERS.get(tier or "", tier), raw=raw)

    def error(self, error: ApiError, request_id: str) -> bytes:
        if error.original is not None and error.original[0] == self.name:
            return error.original[1]
        return envelope_of(error)

    def cut(
        self, message: str, error: UpstreamError | ApiError | None = None, sent: tuple[bytes, bytes] = (b"", b"")
    ) -> bytes:
        """Some clients act on the one of these events, and some on the other; all want the response to have begun."""
        head, number = openai_responses.place_in(*sent)
        began = b""
        if not sent[0]:
            began, number = _begun(head), 1
        code = TOO_LONG if error is not None and _is_too_long(error) else getattr(error, "code", None) or "server_error"
        told = {"type": "upstream_error", "code": "upstream_cut", "message": message, "param": None}
        flat = {name: value for name, value in told.items() if name != "type"}
        first = openai_responses.event_of("error", number, error=told, **flat)
        return began + first + openai_responses.failure_of(head, number + 1, code, message)

    def refusal_stream(self, error: ApiError, model: str, agent: Agent | None) -> bytes | None:
        if _is_too_long(error):
            code = TOO_LONG  # read only here
        elif error.code in _SHOWN and agent in _HIDE_REFUSALS:
            code = "invalid_prompt"
        else:
            return None
        head = openai_responses.new_head(model)
        return _begun(head) + openai_responses.failure_of(head, 1, code, error.message)

    def conversation_id(self, request: UpstreamRequest, session: str) -> str:
        if (previous := request.parsed.previous_response_id) is not None:
            return self.conversation_after(previous)
        return super().conversation_id(request, session)

    def opening(self, request: UpstreamRequest) -> str:
        asked: ResponsesRequest = request.parsed
        return "\n".join(f"{len(text)} {text[:OPENING]}" for text in _opening_of(asked))

    def kept_upstream(self, request: UpstreamRequest) -> str | None:
        return None if request.parsed.previous_response_id is None else "previous_response_id"

    def is_bound(self, request: UpstreamRequest) -> bool:
        return _ENCRYPTED in bytes(request.members.get("input", b"")) or self.kept_upstream(request) is not None

    def leave_home(self, request: UpstreamRequest) -> None:
        """What is encrypted goes, and so do the names of items, by which their upstream would look for it."""
        raw = bytes(request.members.get("input", b""))
        if _ENCRYPTED not in raw:
            return
        kept = []
        for item in msgspec.json.decode(raw):
            if not item.get("encrypted_content"):
                item.pop("id", None)
                kept.append(item)
        request.members = request.members | {"input": msgspec.json.encode(kept)}
        request.parsed = msgspec.structs.replace(request.parsed, input=kept)
        request.raw = None

    def conversation(self, request: UpstreamRequest) -> Conversation:
        return openai_responses_conversation.conversation_of(request)

    def answer(self, request: UpstreamRequest, exchange: Exchange) -> bytes:
        return openai_responses_events.answer_of(request, exchange)

    def events(self, request: UpstreamRequest, exchange: Exchange) -> Pieces:
        return openai_responses_events.events_of(request, exchange)


def _begun(head: openai_responses.Head) -> bytes:
    return openai_responses.event_of("response.created", 0, response=openai_responses.standing(head, "in_progress"))


def _is_too_long(error: UpstreamError | ApiError) -> bool:
    is_of_request = error.status in (400, 413, 422)
    return error.code == TOO_LONG or is_of_request and _SAYS_TOO_LONG.search(error.message) is not None


def _opening_of(asked: ResponsesRequest) -> Iterator[str]:
    """The instructions and the first question, which stay while a conversation grows."""
    if isinstance(asked.instructions, str):
        yield asked.instructions
    if isinstance(asked.input, str):
        yield asked.input
        return
    for item in asked.input or ():
        content = item.get("content")
        if isinstance(content, str):
            yield content
        for part in content if isinstance(content, list) else ():
            if isinstance(part.get("text") if isinstance(part, dict) else None, str):
                yield part["text"]
        if item.get("role") not in (None, "system", "developer"):
            return


DIALECT = OpenAIResponses()
