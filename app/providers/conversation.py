"""The small language in which a client's dialect meets an upstream that speaks another one.

Dialects read requests into a `Conversation` and write replies and events to the client; adapters write a `Conversation` to
their upstream and read its replies and events. What one side has no word for is left out, unless the meaning would change.
Nothing here can hold itself, so that the collector of garbage need not look at it (`gc=False`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Choice = Literal["auto", "none", "required"]


class Text(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Text: of a turn, or a piece of a streamed answer. `signature` as of a `ToolCall`."""

    text: str
    signature: str | None = None


class Reasoning(msgspec.Struct, frozen=True, tag=True, gc=False):
    """What a model thought. `signature` is opaque: whoever wrote it may want to see it again. Of thoughts that are `redacted`
    it is all there is."""

    text: str
    signature: str | None = None
    redacted: bool = False


class Media(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A picture, a sound or a document: at an address, or in base64 with its media type."""

    kind: Literal["image", "audio", "document"]
    url: str | None = None
    data: str | None = None
    media_type: str | None = None


class ToolCall(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A call that the model wants. `arguments` is the text of a JSON object. `signature` is what the model thought before it,
    opaque: whoever wrote it wants to see it again in this very place."""

    id: str
    name: str
    arguments: str
    signature: str | None = None


class ToolResult(msgspec.Struct, frozen=True, tag=True, gc=False):
    """What a call gave."""

    id: str
    parts: tuple[Text | Media, ...]
    is_error: bool = False


Part = Text | Reasoning | Media | ToolCall | ToolResult


class Turn(msgspec.Struct, frozen=True, gc=False):
    """What one side said at once. Results of tools are parts of a user's turn."""

    role: Role
    parts: tuple[Part, ...]


class Tool(msgspec.Struct, frozen=True, gc=False):
    """A function that the client runs. `parameters` is a JSON schema, which `strict` calls follow to the letter."""

    name: str
    description: str | None
    parameters: dict[str, Any]
    strict: bool | None = None


class Schema(msgspec.Struct, frozen=True, gc=False):
    """What an answer is to look like: a JSON schema with a name."""

    schema: dict[str, Any]
    name: str = "answer"
    strict: bool | None = None


class Conversation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request for an answer in words. The limit of the answer is `UpstreamRequest.max_output`."""

    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    choice: Choice | str | None = None  # of a tool; any other word is the name of the one to call
    parallel_calls: bool | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    effort: str | None = None  # of thinking: none, minimal, low, medium, high, xhigh, max, or a provider's own word
    schema: Schema | None = None  # of the answer
    more: Mapping[str, Any] = {}  # what few upstreams take, by its name; see `UpstreamRequest.takes`


class ToolCallDelta(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A piece of the call at `index`, from 0. The first piece has its id and name, and its signature if it has one."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: str | None = None


class Finish(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The answer is complete."""

    reason: FinishReason


class Silence(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Nothing came for a while, or only a sign of life: the stream goes on."""


Event = Text | Reasoning | ToolCallDelta | Finish | Silence


class Reply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A whole answer. What it used is `Exchange.usage`."""

    parts: tuple[Text | Reasoning | ToolCall, ...]
    finish: FinishReason
