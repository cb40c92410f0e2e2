"""OpenAI's Responses, where the upstream speaks them as its client does: bytes pass, and what was used is read on the way.

Upstreams without that path are asked for a chat (`app.providers.openai_conversation`). What both ways share stands here too:
how usage is told, the least that a response object is, and how thoughts that another upstream signed are told apart.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app import clock
from app.providers import usage
from app.providers.base import Pieces, UpstreamError, UpstreamRequest, Usage
from app.providers.http import Answer
from app.providers.http_errors import as_it_came, error_of, reason_in
from app.providers.lenient_json import members_of, read_json
from app.providers.model_name import ModelName
from app.providers.openai_events import CUT, UNREADABLE
from app.providers.openai_exchange import TalliedExchange
from app.providers.sse import COMMENT, EventReader
from app.runtime.ids import new_id
from app.runtime.jsonbody import object_of

SPEAKS = "openai_responses"
PATH = "/responses"
LIMIT = "max_output_tokens"
# Failures that lie in the request: no other upstream would take it.
OF_THE_REQUEST = ("context_length_exceeded", "invalid_prompt")
# What ends a stream that is whole, and why such an answer ended.
ENDS = ("response.completed", "response.incomplete")
REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
CALLS = ("function_call", "custom_tool_call")
# Items of an answer that cost nothing but their tokens; all others are work of tools that the upstream runs.
_OF_TOKENS = frozenset((*CALLS, "message", "reasoning", "compaction"))
_WRITTEN = ("content", "summary", "name", "arguments", "input")  # members of items that the model wrote
# What `encrypted_content` begins with where it is a signature of an upstream that speaks another dialect.
SEALED = "portico:"
_SEALED_SPELLED = b'"' + SEALED.encode()
_LONGEST_COUNT_NAME = 64
_MOST_COUNTS = 20


def usage_object(used: Usage) -> dict[str, Any]:
    """What was used, as this dialect tells it. Clients want every member, also where nothing is known."""
    written = used.more.get("cache_write_tokens", 0) + used.more.get("cache_write_1h_tokens", 0)
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": written},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": used.more.get("reasoning_tokens", 0)},
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


class Head(msgspec.Struct):
    """By what a response is known from its first event to its last."""

    id: str = ""
    created_at: float = 0
    model: str = ""


def standing(head: Head, status: str, **more: Any) -> dict[str, Any]:
    """The least that a response object is."""
    return {
        "id": head.id, "object": "response", "created_at": int(head.created_at), "status": status, "error": None,
        "incomplete_details": None, "model": head.model, "output": [], "parallel_tool_calls": True, "tool_choice": "auto",
        "tools": [], **more,
    }  # fmt: skip


def event_of(kind: str, number: int, **members: Any) -> bytes:
    """One event of a stream."""
    value = {"type": kind, **members, "sequence_number": number}
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(value))


def failure_of(head: Head, number: int, code: str, message: str) -> bytes:
    """The last event of a stream that failed."""
    return event_of(
        "response.failed", number, response=standing(head, "failed", error={"code": code, "message": message})
    )


def new_head(model: str) -> Head:
    return Head(f"resp_{new_id()}", clock.now_s(), model)


class _Outer(msgspec.Struct):
    response: Head = msgspec.field(default_factory=Head)
    sequence_number: int = -1


_outer = msgspec.json.Decoder(_Outer)


def place_in(first: bytes, last: bytes) -> tuple[Head, int]:
    """The head of the response whose stream began with the piece `first`, and the number of the event that may follow its
    piece `last`."""
    began, ended = _read_outer(_data_of(first, 0)), _read_outer(_data_of(last, -1))
    head = began.response if began.response.id else new_head(began.response.model)
    return head, max(began.sequence_number, ended.sequence_number) + 1


def _read_outer(data: bytes) -> _Outer:
    try:
        return _outer.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Outer()


def _data_of(piece: bytes, which: int) -> bytes:
    """The data of a piece's first or last event."""
    lines = [line for line in piece.split(b"\n") if line.startswith(b"data: ")]
    return lines[which][6:] if lines else b""


def without_sealed(items: bytes) -> bytes:
    """The items of a request, JSON, without thoughts that an upstream of another dialect signed: here they would be refused."""
    if _SEALED_SPELLED not in items:
        return items
    said = msgspec.json.decode(items)
    kept = [item for item in said if not _is_sealed(item)] if isinstance(said, list) else said
    return msgspec.json.encode(kept)


def _is_sealed(item: Any) -> bool:
    told = item.get("encrypted_content") if isinstance(item, dict) else None
    return isinstance(told, str) and told.startswith(SEALED)


def body_of(request: UpstreamRequest, model: str, rename: Mapping[str, str], drop: Sequence[str]) -> Sequence[bytes]:
    """The client's body for the upstream's `model`, with the limit that was held for: as it came where that may be."""
    named, limit = msgspec.json.encode(model), request.max_output
    members = request.members
    items = bytes(members.get("input", b""))
    is_sealed = _SEALED_SPELLED in items
    raw = request.raw
    if raw is not None and not is_sealed and members.keys().isdisjoint((*rename, *drop)):
        values = {"model": named}
        if limit is not None and LIMIT in raw.places:
            values[LIMIT] = b"%d" % limit
        elif limit is not None:  # right behind the model, where every other byte stays as it was
            values["model"] = b'%b,"%b":%d' % (named, LIMIT.encode(), limit)
        return raw.put(values)
    if is_sealed:
        members = members | {"input": without_sealed(items)}
    members = members | {"model": named}
    if limit is not None:
        members[LIMIT] = b"%d" % limit
    return object_of({rename.get(name, name): value for name, value in members.items() if name not in drop})


class _Event(msgspec.Struct, gc=False):
    """What the gateway needs of an event."""

    type: str = ""
    delta: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_event = msgspec.json.Decoder(_Event)


class ResponsesExchange(TalliedExchange):
    """One answer whose head was good. It is whole when it says that it is completed, or why it is not."""

    def __init__(self, answer: Answer, request: UpstreamRequest, secret: str | None, grace_s: float) -> None:
        super().__init__(answer, request, SPEAKS, secret, grace_s)
        self._name = ModelName(request.model)
        self._is_kept = request.members.get("store", b"true") != b"false"
        self._head = Head()
        self._last = b""  # the data of the event that came last
        self.finish_reason = None

    def body(self) -> bytes:
        value = read_json(self._body)
        if not isinstance(value, dict):
            raise self._none(self._body)
        if not isinstance(value.get("output"), list) or value.get("status", "completed") not in (
            "completed",
            "incomplete",
        ):
            self._tell(value)  # its provider charges for it all the same
            raise self._none(self._body)
        self._tally.hear_whole(_as_choice(value["output"]))
        self._end(value)
        try:
            return self._name.put_once(self._charged(self._body))
        except ValueError:
            raise UpstreamError(UNREADABLE) from None

    def events(self) -> Pieces:
        began = False
        held = b""  # the first events, until something comes of them
        reader = EventReader(lambda: self._answer.read_within(self._keep_alive_s), comments=True)
        for name, data in reader:
            if name == COMMENT:
                if not held and not began:
                    continue
                kind, piece = "", self._alive()
            else:
                event = _read(data)
                if event is None:
                    continue
                kind = event.type or (name or b"").decode("utf-8", "replace")
                if not kind:
                    if reason_in(read_json(data)):
                        raise self._none(data)
                    continue
                data = data.replace(b"\n", b" ")  # JSON may be written over several lines
                if kind in ("error", "response.failed"):
                    raise self._failed(data, event)
                if len(event.delta) and memoryview(event.delta)[0] == usage.QUOTE:
                    self._tally.hear({kind: event.delta})
                elif len(event.response) or kind in ENDS:
                    data = self._lifecycle(kind, data, event)
                self._last = data
                piece = b"event: %b\ndata: %b\n\n" % (kind.encode(errors="replace"), data)  # JSON may hold half a pair
            if kind in ENDS:
                self._answer.finish()
                return held + piece
            if began:
                yield piece
            elif kind in ("response.created", "response.queued", "response.in_progress"):
                if not held:
                    self._head = _read_outer(data).response
                held += piece
            else:
                began = True
                yield held + piece
                held = b""
        raise error_of(502, reader.stray, self._secret, otherwise=CUT)

    def _lifecycle(self, kind: str, data: bytes, event: _Event) -> bytes:
        """An event that has the response in it, with the portal's name of the model; of the last what is charged."""
        try:
            if kind in ENDS:
                self._end(read_json(bytes(event.response)))
                charged = self._charged(bytes(event.response))
                if charged != bytes(event.response):
                    data = usage.with_member(data, "response", charged)
            return self._name.put_within(data, "response")
        except ValueError:
            raise UpstreamError(UNREADABLE) from None

    def _end(self, response: Any) -> None:
        """The answer is whole. Raises `ValueError` for what is no response."""
        if not isinstance(response, dict):
            raise ValueError("no response")
        self._tell(response)
        self._tally.conclude()
        if self._is_kept and isinstance(id := response.get("id"), str):
            self.kept_as = id
        details = response.get("incomplete_details")
        if response.get("status") == "incomplete":
            reason = details.get("reason") if isinstance(details, dict) else None
            self.finish_reason = REASONS.get(reason, "length") if isinstance(reason, str) else "length"
        else:
            calls = any(kind in CALLS for kind in _kinds_in(response))
            self.finish_reason = "tool_calls" if calls else "stop"

    def _tell(self, response: dict[str, Any]) -> None:
        self._tally.tell(json.dumps(response.get("usage")).encode())
        self._tally.tell_tier(json.dumps(response.get("service_tier")).encode())
        self._tally.note_unpriced(_unpriced_in(response))

    def _charged(self, response: bytes) -> bytes:
        """The response as it came or, if its usage is not what is charged, with that."""
        if not self._tally.usage.estimated:
            return response
        return usage.with_member(response, "usage", msgspec.json.encode(usage_object(self._tally.usage)))

    def _alive(self) -> bytes:
        """A sign of life: an event that changes nothing, as some clients hear no comments."""
        number = max(_read_outer(self._last).sequence_number, 0)
        return event_of("response.in_progress", number, response=standing(self._head, "in_progress"))

    def _failed(self, data: bytes, event: _Event) -> UpstreamError:
        """The failure that an event tells. What was used is told with it."""
        response = read_json(bytes(event.response)) if len(event.response) else None
        if isinstance(response, dict):
            self._tell(response)
            data = bytes(event.response)
        return self._none(data)

    def _none(self, said: bytes) -> UpstreamError:
        """The failure of an attempt whose answer is none, with the reason that it gives."""
        error = error_of(502, said, self._secret, otherwise=UNREADABLE)
        if error.code in OF_THE_REQUEST:
            error.status, error.refused = 400, True
        return error


def refusal_as_it_came(body: bytes, secret: str | None) -> tuple[str, bytes] | None:
    """An error of the upstream's as it wrote it, see `UpstreamError.original`."""
    value = read_json(body)
    is_one = isinstance(value, dict) and isinstance(value.get("error"), dict)
    return as_it_came(SPEAKS, body, secret) if is_one else None


def _read(data: bytes) -> _Event | None:
    """An event, None for what is no object."""
    try:
        return _event.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        members = members_of(data)
    except ValueError:
        return None
    kind = read_json(members.get("type", b"null"))
    return _Event(
        kind if isinstance(kind, str) else "",
        msgspec.Raw(members.get("delta", b"")),
        msgspec.Raw(members.get("response", b"")),
    )


def _as_choice(output: list[Any]) -> bytes:
    """What was answered as the text of a choice, for its tokens to be counted if nobody tells them."""
    said = [{name: item[name] for name in _WRITTEN if name in item} for item in output if isinstance(item, dict)]
    return json.dumps({"choices": [{"message": {"content": said}}]}).encode()


def _kinds_in(response: dict[str, Any]) -> list[str]:
    """The types of what was answered."""
    output = response.get("output")
    kinds = [item.get("type") for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    return [kind for kind in kinds if isinstance(kind, str)]


def _unpriced_in(response: dict[str, Any]) -> dict[str, int]:
    """What the upstream's own tools did: calls by their type, and tokens of other models that they used."""
    found: Counter[str] = Counter(kind for kind in _kinds_in(response) if kind not in _OF_TOKENS)
    tools = response.get("tool_usage")
    for tool, used in tools.items() if isinstance(tools, dict) else ():
        for name in ("input_tokens", "output_tokens"):
            if count := usage.count_in(used.get(name)) if isinstance(used, dict) else None:
                found[f"{tool}_{name}"] = count
    return {name[:_LONGEST_COUNT_NAME]: count for name, count in list(found.items())[:_MOST_COUNTS]}
