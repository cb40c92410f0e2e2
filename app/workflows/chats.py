"""A chat's answer as it comes: the words and thoughts of the stream, and in the end the whole message with its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Any, Literal, NamedTuple, TypeVar

import gevent
import msgspec

from app.providers.sse import COMMENT, EventReader
from app.workflows.inference import Streamed

T = TypeVar("T")

FIGURES_S = 0.5  # between two figures of a stream


class ToolCall(msgspec.Struct, kw_only=True):
    """A call that the model wants made. `arguments` are JSON, as the model wrote them."""

    id: str
    name: str
    arguments: str = ""


class Figures(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a call has used so far, or in the end. Times in ms, the cost in nano-units; `id` names its request."""

    id: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano: int = 0
    duration_ms: int = 0
    ttft_ms: int | None = None
    finish_reason: str | None = None
    estimated: bool = False

    @property
    def tokens_per_s(self) -> float | None:
        """From the first token on; None where that took no time."""
        span_ms = self.duration_ms - (self.ttft_ms or 0)
        return self.completion_tokens * 1000 / span_ms if span_ms > 0 else None


class Part(NamedTuple):
    """A piece of an answer: of its text, of what the model thought, or a moment to look at the figures."""

    kind: Literal["text", "reasoning", "figures"]
    text: str = ""


class Answering:
    """An answer on its way. Go through it once, to its end or until nobody listens; then read what came."""

    def __init__(self, streamed: Streamed) -> None:
        self._call, self._pieces = streamed
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish_reason: str | None = None
        self.error: str | None = None  # why the stream was cut, in words for people

    @property
    def id(self) -> str:
        return self._call.id

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        return "".join(self._thoughts)

    @property
    def calls(self) -> list[ToolCall]:
        return [
            ToolCall(id=one["id"], name=one["name"], arguments="".join(one["arguments"]))
            for _, one in sorted(self._calls.items())
        ]

    @property
    def figures(self) -> Figures:
        """What is known now; while the stream goes on, tokens and cost are estimates."""
        event = self._call.event()
        return Figures(
            id=self._call.id,
            model=self._call.model.name,
            prompt_tokens=event.prompt_tokens,
            completion_tokens=event.completion_tokens,
            cost_nano=event.cost_nano,
            duration_ms=event.duration_ms,
            ttft_ms=event.ttft_ms,
            finish_reason=self._finish_reason,
            estimated=event.estimated,
        )

    @property
    def status(self) -> int:
        """The HTTP status in the ledger: 200, unless the stream failed before its first byte."""
        return self._call.status

    def __iter__(self) -> Iterator[Part]:
        looked = time.monotonic()
        try:
            for name, data in EventReader(lambda: next(self._pieces, b""), comments=True):
                if name == COMMENT:
                    yield Part("figures")
                    continue
                yield from self._read(data)
                if time.monotonic() - looked >= FIGURES_S:
                    looked = time.monotonic()
                    yield Part("figures")
        finally:
            self._pieces.close()

    def whole(self) -> Answering:
        """This answer, once all of it has come."""
        for _ in self:
            continue
        return self

    def _read(self, data: bytes) -> Iterator[Part]:
        if data == b"[DONE]":
            return
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except msgspec.DecodeError:  # such as what a provider adds for itself
            return
        if chunk.error is not None:
            self.error = chunk.error.message
        for choice in chunk.choices or ():
            if choice.index:
                continue
            self._finish_reason = choice.finish_reason or self._finish_reason
            delta = choice.delta or _NOTHING
            if thought := delta.reasoning_content or delta.reasoning:
                self._thoughts.append(thought)
                yield Part("reasoning", thought)
            if text := delta.content or delta.refusal:
                self._texts.append(text)
                yield Part("text", text)
            for call in delta.tool_calls or ():
                self._add(call)

    def _add(self, told: _CallDelta) -> None:
        call = self._calls.setdefault(told.index, {"id": "", "name": "", "arguments": []})
        call["id"] = call["id"] or told.id or ""
        if told.function is not None:
            call["name"] = call["name"] or told.function.name or ""
            call["arguments"].append(told.function.arguments or "")


def side_by_side(works: Sequence[Callable[[], T]]) -> list[T]:
    """What several calls answer that wait for their upstreams at the same time. Raises what the first of them raises."""
    greenlets = [gevent.spawn(copy_context().run, work) for work in works]
    gevent.joinall(greenlets)
    return [greenlet.get() for greenlet in greenlets]


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Error(msgspec.Struct):
    message: str = "The answer was cut."


class _Chunk(msgspec.Struct):
    """What a page needs of a chunk."""

    choices: list[_Choice] | None = None
    error: _Error | None = None


_NOTHING = _Delta()
