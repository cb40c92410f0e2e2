"""OpenAI's Responses from the neutral language: answers and streams are written in it.

One writer makes both: its items are the answer, its events the stream. Items get their indexes in the order in which they begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from app import clock
from app.gateway.dialects.base import hidden_signature
from app.gateway.dialects.openai_responses_conversation import RAW_INPUT, REDACTED, Known, Tools, tools_in
from app.providers.base import Exchange, Pieces, UpstreamRequest, Usage
from app.providers.conversation import Event, Finish, FinishReason, Reasoning, Silence, Text, ToolCall, ToolCallDelta
from app.providers.openai_responses import SEALED, Head, event_of, new_head, standing, usage_object
from app.runtime.ids import new_id

# Members of a request that its answer repeats, unless they are long.
REPEATED = (
    "instructions", "metadata", "parallel_tool_calls", "temperature", "top_p", "text", "reasoning", "tool_choice",
    "tools", "truncation", "user", "prompt_cache_key", "safety_identifier",
)  # fmt: skip
LONGEST_REPEATED = 4096  # bytes
_UNSAID: dict[str, Any] = {
    "background": False, "instructions": None, "metadata": {}, "previous_response_id": None, "store": False,
    "text": {"format": {"type": "text"}}, "truncation": "disabled",
}  # fmt: skip


class _Answer:
    """The response object of one request, at every moment."""

    def __init__(self, request: UpstreamRequest) -> None:
        self.head: Head = new_head(request.model)
        self._limit = request.parsed.max_output_tokens
        repeated = {
            name: msgspec.Raw(raw)
            for name in REPEATED
            if (raw := request.members.get(name, b"null")) != b"null" and len(raw) <= LONGEST_REPEATED
        }
        self._more = _UNSAID | {"max_output_tokens": self._limit} | repeated

    def begun(self) -> dict[str, Any]:
        return standing(self.head, "in_progress", **self._more | {"usage": None})

    def ended(self, output: list[dict[str, Any]], reason: FinishReason, usage: Usage) -> dict[str, Any]:
        """A client that named no limit has no use for an answer that is not complete, and some take it for an error."""
        status, details = "completed", None
        if reason == "content_filter":
            status, details = "incomplete", {"reason": "content_filter"}
        elif reason == "length":
            status = "completed" if self._limit is None else "incomplete"
            details = {"reason": "max_output_tokens"}
        more = {
            "output": output, "incomplete_details": details, "usage": usage_object(usage), "completed_at": clock.now_s(),
        }  # fmt: skip
        return standing(self.head, status, **self._more | more)


def answer_of(request: UpstreamRequest, exchange: Exchange) -> bytes:
    """A whole answer, JSON."""
    answer, writer = _Answer(request), _Items(tools_in(request))
    reply = exchange.reply()
    for index, part in enumerate(reply.parts):
        event = (
            ToolCallDelta(index, part.id, part.name, part.arguments, part.signature)
            if isinstance(part, ToolCall)
            else part
        )
        for _ in writer.take(event):
            pass
    for _ in writer.close():
        pass
    return msgspec.json.encode(answer.ended(writer.items, reply.finish, exchange.conclude()))


def events_of(request: UpstreamRequest, exchange: Exchange) -> Pieces:
    """A stream's events."""
    answer, writer = _Answer(request), Writer(tools_in(request))
    reason: FinishReason = "stop"
    head = b""
    begun = answer.begun()
    for event in exchange.neutral_events():
        if more := writer.goes_on(event):
            yield more
            continue
        if begun:  # only now is it known that there is an answer
            head = writer.event("response.created", response=begun) + writer.event(
                "response.in_progress", response=begun
            )
            begun = {}
        if isinstance(event, Finish):
            reason = event.reason
            break
        if isinstance(event, Silence):  # some clients hear no comments
            said = writer.event("response.in_progress", response=standing(answer.head, "in_progress"))
        else:
            said = b"".join(writer.take(event))
        if piece := head + said:
            yield piece
        head = b""
    if closing := head + b"".join(writer.close()):
        yield closing
    response = answer.ended(writer.items, reason, exchange.conclude())
    return writer.event(f"response.{response['status']}", response=response)


class _Call:
    """A call of a tool whose arguments come in pieces."""

    def __init__(self, index: int, known: Known) -> None:
        self.index = index  # of its item
        self.known = known
        self.arguments: list[str] = []


class Writer:
    """The items of an answer and the events that tell them, numbered.

    A message or a thought is open until something else begins; calls stay open until the end, as their pieces may come in turns.
    """

    def __init__(self, tools: Tools) -> None:
        self.items: list[dict[str, Any]] = []
        self._known = tools.known
        self._base = new_id()
        self._number = 0
        self._open: type[Text] | type[Reasoning] | None = None  # what the last message or thought is
        self._at = 0  # the index of its item
        self._said: list[str] = []  # its text
        self._before = self._after = b""  # what stands around a piece of it
        self._calls: dict[int, _Call] = {}
        self._call_ids: set[str] = set()

    def event(self, kind: str, **members: Any) -> bytes:
        self._number += 1
        return event_of(kind, self._number - 1, **members)

    def take(self, event: Event) -> Iterator[bytes]:
        match event:
            case Text(signature=str(signature)):
                yield from self._seal(SEALED + hidden_signature(signature, event.text))
                if event.text:
                    yield from self._say(event.text)
                    yield from self._close()
            case Text():
                yield from self._say(event.text)
            case Reasoning(redacted=True):
                yield from self._seal(REDACTED + (event.signature or ""))
            case Reasoning():
                if self._open is not Reasoning:
                    yield from self._begin_thought()
                if event.text:
                    yield self._delta(event.text)
                if event.signature:
                    yield from self._close(encrypted_content=SEALED + event.signature)
            case ToolCallDelta():
                yield from self._call(event)

    def goes_on(self, event: Event) -> bytes | None:
        """A piece of the text that is open, which nearly all events are; None for any other."""
        is_more = self._open is Text and type(event) is Text and event.signature is None and event.text
        return self._delta(event.text) if is_more else None  # type: ignore[union-attr]

    def close(self) -> Iterator[bytes]:
        """The answer is complete."""
        yield from self._close()
        for call in self._calls.values():
            yield from self._close_call(call)

    def _say(self, text: str) -> Iterator[bytes]:
        if self._open is not Text:
            yield from self._begin_message()
        if text:
            yield self._delta(text)

    def _seal(self, sealed: str) -> Iterator[bytes]:
        """A thought of which nothing can be read."""
        yield from self._close()
        yield from self._begin("rs", {"type": "reasoning", "summary": []})
        yield self._done({"encrypted_content": sealed})

    def _begin(self, prefix: str, item: dict[str, Any]) -> Iterator[bytes]:
        """A new item, the last so far."""
        item = {"id": f"{prefix}_{self._base}{len(self.items)}", **item}
        self.items.append(item)
        yield self.event("response.output_item.added", output_index=len(self.items) - 1, item=item)

    def _done(self, more: dict[str, Any], at: int = -1) -> bytes:
        at = at % len(self.items)
        self.items[at] |= more
        return self.event("response.output_item.done", output_index=at, item=self.items[at])

    def _begin_message(self) -> Iterator[bytes]:
        yield from self._close()
        yield from self._begin("msg", {"type": "message", "status": "in_progress", "role": "assistant", "content": []})
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._part("response.content_part.added", "content_index", part)
        self._enter(Text, "response.output_text.delta", "content_index", ',"logprobs":[]')

    def _begin_thought(self) -> Iterator[bytes]:
        yield from self._close()
        yield from self._begin("rs", {"type": "reasoning", "summary": []})
        yield self._part("response.reasoning_summary_part.added", "summary_index", {"type": "summary_text", "text": ""})
        self._enter(Reasoning, "response.reasoning_summary_text.delta", "summary_index", "")

    def _enter(self, what: type[Text] | type[Reasoning], kind: str, index: str, more: str) -> None:
        self._open, self._at = what, len(self.items) - 1
        start = f'"type":"{kind}","item_id":"{self.items[-1]["id"]}","output_index":{self._at},"{index}":0'
        self._before = f'event: {kind}\ndata: {{{start},"delta":'.encode()
        self._after = f'{more},"sequence_number":'.encode()

    def _delta(self, text: str) -> bytes:
        """A piece of the open text; nearly all events are one."""
        self._said.append(text)
        self._number += 1
        return b"%b%b%b%d}\n\n" % (self._before, msgspec.json.encode(text), self._after, self._number - 1)

    def _part(self, kind: str, index: str, part: dict[str, Any], at: int = -1) -> bytes:
        at = at % len(self.items)
        return self.event(kind, item_id=self.items[at]["id"], output_index=at, **{index: 0}, part=part)

    def _close(self, **more: Any) -> Iterator[bytes]:
        """End the open message or thought."""
        what, at, text = self._open, self._at, "".join(self._said)
        self._open, self._said = None, []
        if what is None:
            return
        place = {"item_id": self.items[at]["id"], "output_index": at}
        if what is Text:
            part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            yield self.event("response.output_text.done", **place, content_index=0, text=text, logprobs=[])
            yield self._part("response.content_part.done", "content_index", part, at)
            more |= {"status": "completed", "content": [part]}
        else:
            part = {"type": "summary_text", "text": text}
            yield self.event("response.reasoning_summary_text.done", **place, summary_index=0, text=text)
            yield self._part("response.reasoning_summary_part.done", "summary_index", part, at)
            more |= {"summary": [part]}
        yield self._done(more, at)

    def _call(self, event: ToolCallDelta) -> Iterator[bytes]:
        call = self._calls.get(event.index)
        if call is None:
            yield from self._close()
            if event.signature:
                yield from self._seal(SEALED + hidden_signature(event.signature, event.name or ""))
            known = self._known.get(event.name or "") or Known(event.name or "")
            id = event.id if event.id and event.id not in self._call_ids else f"call_{new_id()}"
            self._call_ids.add(id)
            item = (
                {"type": "custom_tool_call", "input": ""}
                if known.is_raw
                else {"type": "function_call", "arguments": ""}
            )
            item |= {"status": "in_progress", "call_id": id, "name": known.name}
            if known.namespace is not None:
                item["namespace"] = known.namespace
            yield from self._begin("ctc" if known.is_raw else "fc", item)
            call = self._calls[event.index] = _Call(len(self.items) - 1, known)
        if event.arguments:
            call.arguments.append(event.arguments)
            if not call.known.is_raw:
                yield self.event("response.function_call_arguments.delta", **self._place(call), delta=event.arguments)

    def _close_call(self, call: _Call) -> Iterator[bytes]:
        arguments, place = "".join(call.arguments), self._place(call)
        if call.known.is_raw:
            text = _unwrapped(arguments)
            yield self.event("response.custom_tool_call_input.delta", **place, delta=text)
            yield self.event("response.custom_tool_call_input.done", **place, input=text)
            yield self._done({"status": "completed", "input": text}, call.index)
            return
        arguments = arguments or "{}"
        yield self.event("response.function_call_arguments.done", **place, arguments=arguments, name=call.known.name)
        yield self._done({"status": "completed", "arguments": arguments}, call.index)

    def _place(self, call: _Call) -> dict[str, Any]:
        return {"item_id": self.items[call.index]["id"], "output_index": call.index}


class _Items(Writer):
    """The items alone: nobody hears the events of a whole answer."""

    def event(self, kind: str, **members: Any) -> bytes:
        return b""

    def _delta(self, text: str) -> bytes:
        self._said.append(text)
        return b""


def _unwrapped(arguments: str) -> str:
    """The text that a model wrote for a tool that takes any, out of the arguments in which it had to write it."""
    try:
        value = msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return arguments
    text = value.get(RAW_INPUT) if isinstance(value, dict) else value
    return text if isinstance(text, str) else arguments
