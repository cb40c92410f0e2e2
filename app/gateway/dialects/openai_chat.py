"""`POST /v1/chat/completions`, checked against OpenAI's published types and ranges before anything is paid for."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from app.directory import Model
from app.gateway.dialects import openai_conversation
from app.gateway.dialects.openai import MESSAGE_TOKENS, STEERING, JsonRequest, OpenAIDialect, added
from app.gateway.envelope import invalid
from app.gateway.errors import bad_request
from app.metering.pricing import TokenBound
from app.providers.base import Exchange, Pieces, UpstreamRequest
from app.providers.conversation import Conversation

# The members that limit an answer; one goes up, in the member that the provider understands.
OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens")

# The most tokens that a part of a prompt can be where the model says nothing of its own. How much is in a file or a
# video can't be seen here: such a part can be as long as the model's context window.
IMAGE_TOKENS = 2_000
AUDIO_TOKENS = 4_000
FILE_TOKENS = 128_000

Count = Annotated[int, Meta(ge=0, le=2**31)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class _Text(msgspec.Struct):
    text: str


class _Refusal(msgspec.Struct):
    refusal: str


class _Url(msgspec.Struct):
    url: str


class _Image(msgspec.Struct):
    image_url: _Url | str


class _Video(msgspec.Struct):
    video_url: _Url | str


class _AudioAt(msgspec.Struct):
    audio_url: _Url | str


class _Sound(msgspec.Struct):
    data: str
    format: str


class _Audio(msgspec.Struct):
    input_audio: _Sound


class _File(msgspec.Struct):
    file: dict[str, Any]


# The parts that OpenAI's format or its widest servers know, by their type, and their shapes. Others pass through.
PARTS: dict[str, type[msgspec.Struct]] = {
    "text": _Text, "refusal": _Refusal, "image_url": _Image, "video_url": _Video, "audio_url": _AudioAt,
    "input_audio": _Audio, "file": _File,
}  # fmt: skip
# Where such a part has its data, if it does not name an address.
_DATA = {"image_url": "url", "video_url": "url", "audio_url": "url", "input_audio": "data", "file": "file_data"}
# Parts that are nothing but their text.
_TEXTS = frozenset(("text", "refusal", "input_text", "output_text", "thinking", "redacted_thinking", "reasoning"))


class Message(msgspec.Struct):
    """One message of a chat. The parts of a content are objects with a `type`; see `ChatRequest.check`."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Any] | None = None
    name: Any = None
    tool_call_id: Any = None
    audio: Any = None  # in history: names a spoken answer, which is heard again
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None
    # What the model thought, in history.
    reasoning_content: Any = None
    thinking_blocks: Any = None
    extra_content: Any = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatRequest(JsonRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)] = msgspec.field(default_factory=list)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    logit_bias: dict[str, Bias] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=1024)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[dict[str, Any]], Meta(max_length=128)] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    # Their values are names, of which there are more each year.
    reasoning_effort: str | None = None
    verbosity: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: Annotated[str, Meta(max_length=64)] | None = None

    required: ClassVar[tuple[str, ...]] = ("messages", "model")
    lists: ClassVar[dict[str, type]] = {"messages": Message}

    @property
    def output_limit(self) -> int | None:
        """The smaller of the two limits. One of 0 counts as 1: some upstreams take 0 for none."""
        one, other = self.max_completion_tokens, self.max_tokens
        limit = min(one, other) if one is not None and other is not None else one if other is None else other
        return 1 if limit == 0 else limit

    @property
    def choices(self) -> int:
        """How many the answer has."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def check(self) -> None:
        for index, message in enumerate(self.messages):
            if type(message.content) is list:
                for place, part in enumerate(message.content):
                    _check_part(part, f"messages[{index}].content[{place}]")
        for index, tool in enumerate(self.tools or ()):
            if not isinstance(tool.get("type"), str):
                raise bad_request(f"Missing or ill-typed 'tools[{index}].type'.", f"tools[{index}].type")
            if tool["type"] == "function":
                function = tool.get("function")
                if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                    raise bad_request(f"'tools[{index}].function' needs a name.", f"tools[{index}].function")
        if isinstance(self.tool_choice, str) and self.tool_choice not in ("none", "auto", "required"):
            raise bad_request("'tool_choice' must be none, auto, required or an object.", "tool_choice")
        if isinstance(self.tool_choice, dict) and not isinstance(self.tool_choice.get("function", {}), dict):
            raise bad_request("'tool_choice.function' must be an object.", "tool_choice.function")
        if self.response_format is not None and not isinstance(self.response_format.get("type"), str):
            raise bad_request("Missing or ill-typed 'response_format.type'.", "response_format.type")

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        prediction = members.get("prediction", b"null")
        framed, unseen = self._framed(model)
        return TokenBound(
            input=size + added(model) + framed + unseen,
            output=self.output_limit,
            answers=max(self.n or 1, self.best_of or 1),
            predicted=0 if prediction == b"null" else len(prediction),  # what of it is rejected is charged as output
            unseen=unseen,
            priced_apart=priced_apart,
        )

    def _framed(self, model: Model) -> tuple[int, int]:
        """What messages and media add to the bytes that are sent, tokens; below 0 where the data of media is more than
        the tokens that it can be. And what files may hold."""
        image = IMAGE_TOKENS if model.image_tokens is None else model.image_tokens
        audio = AUDIO_TOKENS if model.audio_tokens is None else model.audio_tokens
        most = {"image_url": image, "audio_url": audio, "input_audio": audio}
        tokens = MESSAGE_TOKENS * len(self.messages)
        unseen = 0
        for message in self.messages:
            if message.audio is not None:
                tokens += audio
            if type(message.content) is not list:
                continue
            for part in message.content:
                kind = part["type"]
                if kind in _TEXTS:
                    continue
                if kind not in _DATA:  # it may name a picture in a way that is not known here
                    tokens += image
                    continue
                data = _data(part, kind)
                tokens -= len(data)
                if kind in most and not _is_disguised(data, kind):
                    tokens += most[kind]
                else:
                    unseen += max(FILE_TOKENS, len(data)) if model.context_window is None else model.context_window
        return tokens, unseen


def _check_part(part: Any, place: str) -> None:
    kind = part.get("type") if type(part) is dict else None
    if kind == "text" and type(part.get("text")) is str:  # nearly all there are
        return
    if type(part) is not dict:
        raise bad_request(f"'{place}' must be an object with a type.", place)
    if type(kind) is not str:
        raise bad_request(f"Missing or ill-typed '{place}.type'.", f"{place}.type")
    if kind in PARTS:
        try:
            msgspec.convert(part, PARTS[kind])
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            raise invalid(place + path.rstrip("`"), message) from None


def _data(part: dict[str, Any], kind: str) -> str:
    """The data that a part carries within it; empty for one that names an address or a file."""
    inner = part[kind]
    value = inner.get(_DATA[kind]) if type(inner) is dict else inner
    if not isinstance(value, str):
        return ""
    return value if kind in ("input_audio", "file") or value.startswith("data:") else ""


def _is_disguised(data: str, kind: str) -> bool:
    """Whether the data of a picture or a sound says to be something else, such as a document, which some upstreams
    read as one."""
    return kind != "input_audio" and bool(data) and not data.startswith(f"data:{kind.removesuffix('_url')}/")


OPENING = 2_000  # characters of the instructions, and of the first question

# What upstreams give with an answer and only they themselves understand when it comes back.
_OF_HOME = ("thinking_blocks", "reasoning_details", "extra_content", "provider_specific_fields")
_THOUGHTS = ("thinking", "redacted_thinking")
_OF_HOME_SPELLED = tuple(b'"%s"' % name.encode() for name in (*_OF_HOME, *_THOUGHTS))


def _opening(messages: list[Message]) -> str:
    """How a conversation begins: its instructions and its first question, which stay while it grows."""
    said = []
    for message in messages:
        content = message.content
        if type(content) is list:
            texts = [part["text"] for part in content if type(part.get("text")) is str]
            content = "\n".join(texts)
        if isinstance(content, str):
            said.append(f"{len(content)} {content[:OPENING]}")
        if message.role not in ("system", "developer"):
            break
    return "\n".join(said)


def _leave_home(message: dict[str, Any]) -> None:
    for name in _OF_HOME:
        message.pop(name, None)
    for tool_call in message.get("tool_calls") or ():
        for name in _OF_HOME:
            tool_call.pop(name, None)
    if type(message.get("content")) is list:
        message["content"] = [part for part in message["content"] if part.get("type") not in _THOUGHTS]


class OpenAIChat(OpenAIDialect):
    """OpenAI's chat completions."""

    name: ClassVar[str] = "openai_chat"
    streams_events: ClassVar[bool] = True
    request: ClassVar[type[JsonRequest]] = ChatRequest
    own: ClassVar[tuple[str, ...]] = STEERING + OUTPUT_LIMITS

    def opening(self, request: UpstreamRequest) -> str:
        return _opening(request.parsed.messages)

    def is_bound(self, request: UpstreamRequest) -> bool:
        raw = bytes(request.members.get("messages", b""))
        return any(name in raw for name in _OF_HOME_SPELLED)

    def leave_home(self, request: UpstreamRequest) -> None:
        if self.is_bound(request):
            messages = msgspec.json.decode(request.members["messages"])
            for message in messages:
                _leave_home(message)
            request.members["messages"] = msgspec.json.encode(messages)

    def conversation(self, request: UpstreamRequest) -> Conversation:
        return openai_conversation.conversation_of(request)

    def answer(self, request: UpstreamRequest, exchange: Exchange) -> bytes:
        return openai_conversation.answer_of(request, exchange.reply(), exchange.conclude())

    def events(self, request: UpstreamRequest, exchange: Exchange) -> Pieces:
        return openai_conversation.chunks_of(request, exchange)


DIALECT = OpenAIChat()
