"""What clients may ask of /v1, checked against OpenAI's published types and ranges before anything is paid for.

Fields not named here pass through unchecked; the upstream knows them or refuses them itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.directory import Model
from app.gateway.envelope import decode_member, invalid
from app.gateway.errors import bad_request

# Fields of other gateways' clients by which a caller would steer the gateway to an address or a credential.
FORBIDDEN = ("api_base", "base_url", "api_key", "api_version", "extra_headers")
# The gateway's own: they steer, and never reach an upstream.
STEERING = ("provider", "fallback_providers")

# What a picture or a sound may cost at the most, in tokens, where the model says nothing of its own.
IMAGE_TOKENS = 2_000
AUDIO_TOKENS = 4_000

Count = Annotated[int, Meta(ge=1, le=2**31)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
NonEmpty = Annotated[str, Meta(min_length=1)]


class TextPart(msgspec.Struct, tag="text"):
    text: str


class RefusalPart(msgspec.Struct, tag="refusal"):
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


class _Url(msgspec.Struct):
    url: str


class ImagePart(msgspec.Struct, tag="image_url"):
    image_url: _Url
    text: str = ""


class VideoPart(msgspec.Struct, tag="video_url"):
    video_url: _Url
    text: str = ""


class _Sound(msgspec.Struct):
    data: str
    format: str


class AudioPart(msgspec.Struct, tag="input_audio"):
    input_audio: _Sound
    text: str = ""


class FilePart(msgspec.Struct, tag="file"):
    file: dict[str, Any]
    text: str = ""


Part = TextPart | RefusalPart | ImagePart | VideoPart | AudioPart | FilePart


class Message(msgspec.Struct):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Steered(msgspec.Struct):
    """What every endpoint that names a model has."""

    model: Name
    provider: Name | None = None
    fallback_providers: Annotated[list[Name], Meta(max_length=20)] | None = None
    user: str | None = None


class ChatRequest(Steered):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)] = msgspec.field(default_factory=list)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=1024)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def output_limit(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def check(self) -> None:
        """What the types cannot say."""
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
        if self.stream_options is not None and not self.stream:
            raise bad_request("'stream_options' is only allowed when 'stream' is true.", "stream_options")

    def input_bound(self, members: dict[str, bytes], model: Model) -> int:
        """The most tokens the input can be: a token has at least one byte of UTF-8, a message 16 of frame, a picture
        and a sound what the model says of them."""
        bound = 0
        for message in self.messages:
            bound += 16
            content = message.content
            if isinstance(content, str):
                bound += _bytes(content)
            elif content is not None:
                for part in content:
                    bound += _bytes(part.text)
                    if isinstance(part, ImagePart | VideoPart):
                        bound += IMAGE_TOKENS if model.image_tokens is None else model.image_tokens
                    elif isinstance(part, AudioPart):
                        bound += AUDIO_TOKENS if model.audio_tokens is None else model.audio_tokens
                    elif isinstance(part, FilePart):
                        bound += len(msgspec.json.encode(part.file))
            if message.tool_calls:
                bound += len(msgspec.json.encode(message.tool_calls))
            if message.function_call:
                bound += len(msgspec.json.encode(message.function_call))
        return bound + sum(len(members.get(name, b"")) for name in ("tools", "functions", "response_format"))


class EmbeddingsRequest(Steered):
    """`POST /v1/embeddings`."""

    input: Any = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None

    def inputs(self) -> list[Any]:
        """What is to be embedded, one item a vector: texts, or lists of tokens. After `check`."""
        items: list[Any] = self.input
        return items

    def check(self) -> None:
        self.input = _embeddable(self.input)

    def input_bound(self) -> int:
        """The most tokens the input can be."""
        return sum(len(item) if isinstance(item, list) else _bytes(item) + 16 for item in self.inputs())


def _embeddable(given: Any) -> Any:
    if isinstance(given, str) or isinstance(given, list) and given and all(type(token) is int for token in given):
        given = [given]
    if not isinstance(given, list) or not given:
        raise bad_request("'input' must be a text, a list of texts, or a list of tokens, and not empty.", "input")
    if len(given) > 2048:
        raise bad_request("'input' may have at most 2048 items.", "input")
    for index, item in enumerate(given):
        texts = isinstance(item, str) and item
        tokens = isinstance(item, list) and item and all(type(token) is int and token >= 0 for token in item)
        if not texts and not tokens or type(item) is not type(given[0]):
            raise bad_request(
                f"'input[{index}]' must be a text or a list of tokens, as the first is.", f"input[{index}]"
            )
    return given


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def parse(kind: type[Steered], values: dict[str, Any], members: dict[str, bytes]) -> Any:
    """A body's values as `kind`; raises `ApiError` 400 naming the member that is wrong."""
    for name in FORBIDDEN:
        if name in members:
            raise bad_request(f"'{name}' can't be set here: providers are configured in the portal.", name)
    if kind is ChatRequest and "messages" not in members:
        raise bad_request("Missing required parameter: 'messages'.", "messages")
    if "model" not in members:
        raise bad_request("Missing required parameter: 'model'.", "model")
    try:
        asked: Any = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise _placed(kind, members, error) from None
    except RecursionError:
        raise bad_request("The request body is nested too deep.") from None
    asked.check()
    return asked


def _placed(kind: type[Steered], members: dict[str, bytes], error: msgspec.ValidationError) -> Exception:
    """The refusal with the exact place: lists are gone through one by one, for the decoder tells no index."""
    message, _, path = str(error).partition(" - at `$.")
    param = path.rstrip("`")
    name, marker, rest = param.partition("[...]")
    if marker and name in members:
        try:
            items = msgspec.json.decode(members[name], type=list[msgspec.Raw])
        except msgspec.DecodeError:
            items = []
        if name == "messages":
            for index, item in enumerate(items):
                try:
                    decode_member(bytes(item), Message, f"messages[{index}]")
                except Exception as placed:
                    return placed
        param = name + rest.replace("[...]", "")
    return invalid(param, message)
