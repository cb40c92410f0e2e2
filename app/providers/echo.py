"""Echo: answers with the question, here in the process; for trying Portico out and for measuring it.

It is deterministic and honest: a token is a word, and what it says it used is what it read and wrote.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import gevent
import msgspec
from msgspec import Meta

from app import clock
from app.directory import Capability, Deployment
from app.providers import openai_conversation
from app.providers.base import Adapter, CheckResult, Exchange, Pieces, UpstreamError, UpstreamRequest, Usage
from app.providers.conversation import Event, Reply
from app.providers.model_list import ListedModel
from app.providers.settings import Settings
from app.runtime.ids import new_id

DIMENSIONS = 256
_WORD = re.compile(r"(?<!\s)\s*+\S++")  # begins where a word ends, so that blanks are gone through once


class EchoSettings(Settings):
    """What echo can be told."""

    delay_ms: Annotated[
        int, Meta(ge=0, le=10_000, title="Delay per token (ms)", description="How long each word of an answer takes.")
    ] = 0


def words(text: str) -> list[str]:
    """The text in tokens: each word with the space before it."""
    return _WORD.findall(text)


class _Echo(Exchange):
    """What both answers have in common: they know what they use."""

    _used: Usage

    @property
    def usage(self) -> Usage:
        return self._used

    def close(self) -> None:
        """There is nothing to give back."""


class _Message(msgspec.Struct):
    role: str
    content: Any = None


class _Chat(msgspec.Struct):
    """What echo needs of a chat."""

    messages: list[_Message]
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    n: int | None = None


def _asked(request: UpstreamRequest) -> Any:
    """The request as a chat, whatever its client speaks."""
    if request.dialect == "openai_chat":
        return request.parsed
    members = openai_conversation.members_of(request.conversation(), stream=request.stream)
    return msgspec.convert({name: msgspec.json.decode(value) for name, value in members.items()}, _Chat)


class EchoChat(_Echo):
    """A chat answered with the last thing the user said."""

    speaks = "openai_chat"

    def __init__(self, request: UpstreamRequest, delay_ms: int) -> None:
        asked = _asked(request)
        self._request = request
        self._delay_s = delay_ms / 1000
        self._id = f"chatcmpl-{new_id()}"
        self._created = clock.now_s()
        self._call = _tool_call(asked.tools, asked.tool_choice)
        said = words(_last_said(asked.messages))
        limit = request.max_output
        self._answer = said if limit is None else said[:limit]
        cut = len(self._answer) < len(said)
        self._reason = "tool_calls" if self._call else "length" if cut else "stop"
        self._answers = asked.n or 1
        read = sum(len(words(_text(message.content))) for message in asked.messages)
        self._used = Usage(prompt_tokens=read, estimated=False)
        self.finish_reason = None

    def receive(self) -> None:
        self._pause(len(self._answer))

    def body(self) -> bytes:
        self._finish(self._tokens * self._answers)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._answer), "refusal": None}
        if self._call:
            message |= {"content": None, "tool_calls": [self._call]}
        choices = [
            {"index": i, "message": message, "logprobs": None, "finish_reason": self._reason}
            for i in range(self._answers)
        ]
        return msgspec.json.encode(self._head("chat.completion") | {"choices": choices, "usage": self._usage()})

    def reply(self) -> Reply:
        return openai_conversation.reply_of(self.body())

    def neutral_events(self) -> Iterator[Event]:
        return openai_conversation.events_of(self.events())

    def events(self) -> Pieces:
        for index in range(self._answers):
            yield self._chunk(index, {"role": "assistant", "content": None if self._call else ""})
            if self._call:
                self._pause(1)
                self._used.completion_tokens += self._tokens
                yield self._chunk(index, {"tool_calls": [{"index": 0, **self._call}]})
            else:
                for word in self._answer:
                    self._pause(1)
                    self._used.completion_tokens += 1
                    yield self._chunk(index, {"content": word})
            yield self._chunk(index, {}, self._reason)
        self._finish(self._used.completion_tokens)
        if self._request.include_usage:
            head = self._head("chat.completion.chunk")
            yield _event(head | {"choices": [], "usage": self._usage()})
        return None

    @property
    def _tokens(self) -> int:
        if self._call:
            return len(words(self._call["function"]["arguments"])) + 1
        return len(self._answer)

    def _finish(self, completion_tokens: int) -> None:
        self._used.completion_tokens = completion_tokens
        self.finish_reason = self._reason

    def _head(self, object: str) -> dict[str, Any]:
        return {"id": self._id, "object": object, "created": self._created, "model": self._request.model}

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event(self._head("chat.completion.chunk") | {"choices": [choice]})

    def _usage(self) -> dict[str, int]:
        read, wrote = self._used.prompt_tokens, self._used.completion_tokens
        return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}

    def _pause(self, tokens: int) -> None:
        if self._delay_s:
            gevent.sleep(self._delay_s * tokens)


class EchoEmbeddings(_Echo):
    """Vectors drawn from a hash of each input: equal texts have equal vectors, of length 1."""

    speaks = "openai_embeddings"

    def __init__(self, request: UpstreamRequest) -> None:
        self._request = request
        read = sum(len(item) if isinstance(item, list) else len(words(item)) for item in request.parsed.inputs())
        self._used = Usage(prompt_tokens=read, estimated=False)

    def body(self) -> bytes:
        asked = self._request.parsed
        size = asked.dimensions or DIMENSIONS
        data = []
        for index, item in enumerate(asked.inputs()):
            vector = _vector(msgspec.json.encode(item), size)
            told: Any = vector
            if asked.encoding_format == "base64":
                told = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": told})
        read = self._used.prompt_tokens
        return msgspec.json.encode(
            {
                "object": "list",
                "data": data,
                "model": self._request.model,
                "usage": {"prompt_tokens": read, "total_tokens": read},
            }
        )

    def events(self) -> Pieces:
        raise UpstreamError("Embeddings are not streamed.", refused=True, status=400)


def _vector(seed: bytes, size: int) -> list[float]:
    """`size` floats between -1 and 1, scaled to length 1."""
    raw = hashlib.shake_256(seed).digest(size * 2)
    values = [number / 32768 for number in struct.unpack(f"<{size}h", raw)]
    length = sum(value * value for value in values) ** 0.5 or 1.0
    return [value / length for value in values]


def _tool_call(tools: Any, choice: Any) -> dict[str, Any] | None:
    """A call of the tool that the request insists on; nobody else's."""
    functions = [tool["function"] for tool in tools or () if isinstance(tool, dict) and "function" in tool]
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        functions = [function for function in functions if function.get("name") == name]
    elif choice != "required":
        return None
    if not functions:
        return None
    properties = (functions[0].get("parameters") or {}).get("properties") or {}
    arguments = {name: _example(schema) for name, schema in properties.items()} if isinstance(properties, dict) else {}
    return {
        "id": "call_" + hashlib.sha256(msgspec.json.encode(functions[0])).hexdigest()[:24],
        "type": "function",
        "function": {"name": functions[0].get("name"), "arguments": msgspec.json.encode(arguments).decode()},
    }


def _example(schema: Any) -> Any:
    """A value that a JSON schema's simplest reading admits."""
    schema = schema if isinstance(schema, dict) else {}
    if schema.get("enum"):
        return schema["enum"][0]
    examples: dict[Any, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    kind = schema.get("type")
    return examples.get(kind, "echo") if isinstance(kind, str) else "echo"


def _last_said(messages: Any) -> str:
    for message in reversed(messages):
        if message.role in ("user", "tool"):
            return _text(message.content)
    return _text(messages[-1].content)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = (part.get("text") or part.get("refusal") for part in content or ())
    return " ".join(text for text in parts if isinstance(text, str))


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


class Echo(Adapter):
    """A provider that needs no upstream."""

    title: ClassVar[str] = "Echo"
    Settings: ClassVar[type[Settings]] = EchoSettings
    abilities: ClassVar[frozenset[Capability]] = frozenset(("chat", "embeddings"))
    settings: EchoSettings

    def open(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        if request.capability == "embeddings":
            return EchoEmbeddings(request)
        return EchoChat(request, self.settings.delay_ms)

    def check(self, *, model: str | None, prompt: str | None, parameters: dict[str, Any]) -> CheckResult:
        return CheckResult(result="ok", latency_ms=0, detail="Echo answers here in the process.")

    def list_models(self) -> tuple[ListedModel, ...]:
        """None: it answers for any name."""
        return ()


ADAPTER = Echo
