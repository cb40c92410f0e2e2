"""A scripted upstream in OpenAI's shape, over real HTTP on a real socket, that can misbehave in every way upstreams do.

It is written on bare sockets, because the faults that matter (a cut, a reset, half a header) are below any HTTP library.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import random
import select
import socket
import struct
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.services.waiting import PATIENCE_S

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


class ClientGone(Exception):
    """The other side closed the connection before the answer was whole."""


@dataclass
class Exchange:
    """One request as it came in, and what became of its answer. Times are `time.monotonic()`."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    began_at: float
    connection: int  # requests of one kept-alive connection bear the same number
    client_gone_at: float | None = None  # when the client closed before the answer was whole
    ended_at: float | None = None
    chunks_sent: int = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """The answering half of a connection; every wait notices at once that the client is gone."""

    def __init__(self, connection: socket.socket, exchange: Exchange, stopping: threading.Event) -> None:
        self.connection = connection
        self.exchange = exchange
        self.stopping = stopping

    def send(self, data: bytes) -> None:
        try:
            self.connection.sendall(data)
        except OSError:
            self._gone()

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self.stopping.is_set():
            readable, _, _ = select.select([self.connection], [], [], min(left, 0.05))
            if readable:
                try:
                    if not self.connection.recv(1, socket.MSG_PEEK):
                        self._gone()
                except OSError:
                    self._gone()
                time.sleep(min(left, 0.005))  # it sent something ahead of time: do not spin on it

    def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{k}: {v}" for k, v in headers.items())]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))
        self.exchange.chunks_sent += 1

    def reset(self) -> None:
        """End the connection by RST, as a crash of the other machine's process would."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _gone(self) -> None:
        if self.exchange.client_gone_at is None:
            self.exchange.client_gone_at = time.monotonic()
        raise ClientGone


REASONS = {200: "OK", 201: "Created", 202: "Accepted", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
           429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip


class Behaviour:
    """How one request is answered; `play` returns whether the connection may be used again."""

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        raise NotImplementedError


@dataclass
class Answer(Behaviour):
    """A whole answer. Objects are sent as JSON, text and bytes as they are."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    delay_s: float = 0.0
    cut_after: int | None = None  # close after this many bytes of the body, in the middle of what was announced
    drip: tuple[int, float] | None = None  # so many bytes, every so many seconds
    close: bool = False  # close the kept-alive connection afterwards, without a word

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        wire.wait(self.delay_s)
        body = self.body if isinstance(self.body, bytes) else (
            self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode())  # fmt: skip
        wire.head(self.status, {"Content-Type": self.content_type, "Content-Length": str(len(body))} | self.headers)
        if self.drip is None:
            wire.send(body[: self.cut_after])
        else:
            size, pause = self.drip
            for start in range(0, len(body[: self.cut_after]), size):
                wire.send(body[start : start + size])
                exchange.chunks_sent += 1
                wire.wait(pause)
        return self.cut_after is None and not self.close


def failure(
    status: int, message: str = "scripted", *, code: str | None = None, retry_after: str | None = None
) -> Answer:
    """An error in OpenAI's envelope."""
    headers = {"Retry-After": retry_after} if retry_after is not None else {}
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "server_error" if status >= 500 else
                                                                      "invalid_request_error")  # fmt: skip
    return Answer({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers)


@dataclass
class Stream(Behaviour):
    """Server-sent events. Objects become `data: <json>`, text `data: <text>`, bytes go out as they are."""

    chunks: Sequence[Any]
    delay_s: float = 0.0  # before each chunk
    first_delay_s: float = 0.0  # after the head, before the first chunk
    head_delay_s: float = 0.0
    done: bool = True  # end with `data: [DONE]`
    cut_after: int | None = None  # close after so many chunks, without the end of the body
    reset: bool = False  # ... by RST
    hang_after: int | None = None  # stand still after so many chunks, until the client leaves
    after: Callable[[Wire], None] | None = None  # instead of the end of the body, see below
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream; charset=utf-8"

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        wire.wait(self.head_delay_s)
        wire.head(self.status, {"Content-Type": self.content_type, "Transfer-Encoding": "chunked"} | self.headers)
        wire.wait(self.first_delay_s)
        for number, chunk in enumerate([*self.chunks, "[DONE]"] if self.done else self.chunks):
            if number == self.hang_after:
                wire.wait(3600)
            if number == self.cut_after:
                if self.reset:
                    wire.reset()
                return False
            wire.wait(self.delay_s)
            if isinstance(chunk, bytes):
                wire.chunk(chunk)
            else:
                text = chunk if isinstance(chunk, str) else json.dumps(chunk)
                wire.chunk(f"data: {text}\n\n".encode())
        if self.hang_after is not None and self.hang_after >= len(self.chunks):
            wire.wait(3600)
        if self.after is not None:
            self.after(wire)
            return False
        wire.send(b"0\r\n\r\n")
        return True


# What may come after the last chunk of a `Stream`; the connection ends behind it.


def stay_open(wire: Wire) -> None:
    wire.wait(3600)


def hang_up(wire: Wire) -> None:
    """Nothing more."""


def crash(wire: Wire) -> None:
    time.sleep(0.05)  # what was sent is to arrive before the reset
    wire.reset()


def say_nonsense(wire: Wire) -> None:
    wire.send(b"this is no chunk \xff\r\n\r\nHTTP/1.1 500 No\r\n\r\n")


def answer_twice(wire: Wire) -> None:
    wire.send(b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def beat_for_ever(beat: bytes) -> Callable[[Wire], None]:
    def after(wire: Wire) -> None:
        while True:
            wire.chunk(beat)
            wire.wait(0.02)

    return after


@dataclass
class Hang(Behaviour):
    """Takes the request and never says a word."""

    seconds: float = 3600.0

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        wire.wait(self.seconds)
        return False


@dataclass
class WhenReleased(Behaviour):
    """Answers like any chat, but only once it is let go."""

    request: dict[str, Any]
    released: threading.Event

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        while not self.released.is_set() and not wire.stopping.is_set():
            wire.wait(0.02)
        return chat(self.request).play(exchange, wire)


@dataclass
class Greedy(Behaviour):
    """Takes all that it is let: it charges every byte that came as a token, and answers as long as it may, in every
    choice, and its prediction was wrong. It knows one member that limits it; without that its answers are very long."""

    limit_field: str = "max_tokens"
    unlimited: int = 100_000  # tokens

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        asked = exchange.json
        predicted = len(json.dumps(asked["prediction"])) if asked.get("prediction") else 0
        long = (asked.get(self.limit_field) or self.unlimited) + predicted
        told = usage(len(exchange.body), long * max(asked.get("n") or 1, asked.get("best_of") or 1))
        message = {"role": "assistant", "content": "more"}
        common = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            choices = [{"index": 0, "message": message, "finish_reason": "length"}]
            answer = common | {"object": "chat.completion", "choices": choices, "usage": told}
            return Answer(answer).play(exchange, wire)
        chunk = common | {"object": "chat.completion.chunk"}
        choices = [{"index": 0, "delta": message, "finish_reason": "length"}]
        return Stream([chunk | {"choices": choices}, chunk | {"choices": [], "usage": told}]).play(exchange, wire)


@dataclass
class Raw(Behaviour):
    """These bytes, whatever they are, and then the end; without any it just closes, with `reset` by RST."""

    data: bytes = b""
    reset: bool = False

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        wire.send(self.data)
        if self.reset:
            wire.reset()
        return False


GARBAGE = Raw(b"\x16\x03\x01\x02\x00\x01\x00 this is not HTTP \xff\xfe\r\n\r\n")
INVALID_JSON = Answer(b'{"id": "chatcmpl-1", "choices": [{"index": 0, "mess')
WRONG_TYPE = Answer("<html><body>Bad gateway</body></html>", content_type="text/html")


class Default(Behaviour):
    """What a well-behaved OpenAI would say: chat, responses, completions, embeddings, models; text is echoed word by word.
    And what Anthropic would: messages."""

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        if exchange.method == "GET" and exchange.path.partition("?")[0].endswith("/models"):
            models = [{"id": name, "object": "model", "created": 1, "owned_by": "tests"} for name in ("small", "large")]
            return Answer({"object": "list", "data": models}).play(exchange, wire)
        try:
            request = exchange.json
        except ValueError:
            return failure(400, "not JSON").play(exchange, wire)
        for ending, answer in (
            ("/chat/completions", chat), ("/completions", completion), ("/embeddings", embeddings), ("/messages", messages),
            ("/responses", responses),
            ("/messages/count_tokens", lambda asked: Answer({"input_tokens": 17 + len(asked["messages"])})),
            (":generateContent", generated), (":streamGenerateContent", lambda asked: generated(asked, stream=True)),
            (":batchEmbedContents", vectors), (":countTokens", lambda asked: Answer({"totalTokens": 18})),
        ):  # fmt: skip
            if exchange.path.partition("?")[0].endswith(ending):
                return answer(request).play(exchange, wire)
        return failure(404, f"no such path: {exchange.path}").play(exchange, wire)


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content if part.get("type") == "text")
    return str(content)


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0}}  # fmt: skip


def chat(request: dict[str, Any], **options: Any) -> Behaviour:
    """The default chat answer; `options` are those of `Stream` or `Answer`, e.g. `chat(request, delay_s=1)`."""
    messages = request.get("messages") or []
    said = _text_of(messages[-1]) if messages else ""
    words = [word + " " for word in said.split()] or ["Hello "]
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    finish = "stop"
    if isinstance(limit, int) and limit < len(words):
        words, finish = words[:limit], "length"
    calls = [
        {"id": f"call_{number}", "type": "function",
         "function": {"name": tool["function"]["name"], "arguments": json.dumps({"text": said})}}
        for number, tool in enumerate(request.get("tools") or []) if tool.get("type") == "function"
    ]  # fmt: skip
    if calls:
        words, finish = [], "tool_calls"
    spent = usage(sum(len(_text_of(message).split()) for message in messages), max(1, len(words)))
    common = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": request.get("model", "small")}
    count = request.get("n") or 1
    if not request.get("stream"):
        message = {"role": "assistant", "content": None if calls else "".join(words).rstrip()}
        if calls:
            message["tool_calls"] = calls  # type: ignore[assignment]
        choices = [{"index": index, "message": message, "logprobs": None, "finish_reason": finish}
                   for index in range(count)]  # fmt: skip
        return Answer(common | {"object": "chat.completion", "choices": choices, "usage": spent}, **options)
    with_usage = bool((request.get("stream_options") or {}).get("include_usage"))

    def piece(delta: dict[str, Any], index: int = 0, reason: str | None = None) -> dict[str, Any]:
        extra = {"usage": None} if with_usage else {}
        return common | {"object": "chat.completion.chunk", **extra,
                         "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}  # fmt: skip

    chunks: list[dict[str, Any]] = []
    for index in range(count):
        chunks.append(piece({"role": "assistant", "content": None if calls else ""}, index))
        chunks += [piece({"tool_calls": [{"index": place} | call]}, index) for place, call in enumerate(calls)]
        chunks += [piece({"content": word}, index) for word in words]
        chunks.append(piece({}, index, finish))
    if with_usage:
        chunks.append(common | {"object": "chat.completion.chunk", "choices": [], "usage": spent})
    return Stream(chunks, **options)


def completion(request: dict[str, Any], **options: Any) -> Behaviour:
    prompt = request.get("prompt") or ""
    words = [word + " " for word in str(prompt).split()] or ["Hello "]
    common = {"id": "cmpl-1", "object": "text_completion", "created": 1_700_000_000, "model": request.get("model")}
    spent = usage(len(words), len(words))
    if not request.get("stream"):
        choice = {"index": 0, "text": "".join(words).rstrip(), "logprobs": None, "finish_reason": "stop"}
        return Answer(common | {"choices": [choice], "usage": spent}, **options)
    chunks = [common | {"choices": [{"index": 0, "text": word, "finish_reason": None}]} for word in words]
    chunks.append(common | {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    if (request.get("stream_options") or {}).get("include_usage"):
        chunks.append(common | {"choices": [], "usage": spent})
    return Stream(chunks, **options)


def message(*blocks: dict[str, Any], stop: str = "end_turn", **usage: Any) -> dict[str, Any]:
    """An answer of Anthropic's."""
    used = {"input_tokens": 7, "output_tokens": 3} | usage
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "up", "content": list(blocks),
            "stop_reason": stop, "stop_sequence": None, "usage": used}  # fmt: skip


def events_of(*values: dict[str, Any], **options: Any) -> Stream:
    """A stream of Anthropic's, of events that name their type."""
    pieces = [f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values]
    return Stream(pieces, done=False, **options)


def messages(request: dict[str, Any], **options: Any) -> Behaviour:
    """Anthropic's default answer: the last words, or a call of each tool that the client runs."""
    words = [word + " " for word in _text_of(request["messages"][-1]).split()] or ["Hello "]
    tools = [tool for tool in request.get("tools") or [] if tool.get("type", "custom") == "custom"]
    calls = [{"type": "tool_use", "id": f"toolu_{number}", "name": tool["name"], "input": {"text": "".join(words)}}
             for number, tool in enumerate(tools)]  # fmt: skip
    blocks = calls or [{"type": "text", "text": "".join(words).rstrip()}]
    stop = "tool_use" if calls else "end_turn"
    spent: dict[str, Any] = {"input_tokens": 7, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 0,
             "output_tokens": len(words), "service_tier": "standard"}  # fmt: skip
    if not request.get("stream"):
        return Answer(message(*blocks, stop=stop, **spent) | {"model": request["model"]}, **options)
    start = message(**spent | {"output_tokens": 1}) | {"model": request["model"], "stop_reason": None}
    values: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(blocks):
        empty: dict[str, Any] = {**block, **({"input": {}} if calls else {"text": ""})}
        pieces = [json.dumps(block["input"])] if calls else words
        kind, member = ("input_json_delta", "partial_json") if calls else ("text_delta", "text")
        values.append({"type": "content_block_start", "index": index, "content_block": empty})
        values += [{"type": "content_block_delta", "index": index, "delta": {"type": kind, member: piece}}
                   for piece in pieces]  # fmt: skip
        values.append({"type": "content_block_stop", "index": index})
    values.append({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None},
                   "usage": {"output_tokens": len(words)}})  # fmt: skip
    return events_of(*values, {"type": "message_stop"}, **options)


def part_of_gemini(*parts: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    """An answer of Gemini's, or a chunk of one."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    told = {"modelVersion": "up", "responseId": "mAitaLmkHPPlz7IP"} | more
    return {"candidates": [candidate | ({"finishReason": reason} if reason else {})], **told}


def chunks_of_gemini(*chunks: dict[str, Any], **options: Any) -> Stream:
    """A stream of Gemini's, which no event ends."""
    return Stream(chunks, done=False, **options)


def generated(request: dict[str, Any], *, stream: bool = False, **options: Any) -> Behaviour:
    """Gemini's default answer: the last words, or a call of each tool of which the first is signed. A call of the past without
    a signature is refused, as newer models refuse it."""
    for content in request["contents"]:
        calls = [part for part in content["parts"] if "functionCall" in part]
        if calls and not calls[0].get("thoughtSignature"):
            error = {
                "code": 400,
                "status": "INVALID_ARGUMENT",
                "message": "Function call is missing a thought_signature.",
            }
            return Answer({"error": error}, 400)
    words = [word + " " for part in request["contents"][-1]["parts"] for word in part.get("text", "").split()] or [
        "Hello "
    ]
    declared = [one for tool in request.get("tools") or [] for one in tool["functionDeclarations"]]
    parts = [{"functionCall": {"id": f"fc_{number}", "name": one["name"], "args": {"text": "".join(words)}}}
             | ({} if number else {"thoughtSignature": "c2lnbmVk"}) for number, one in enumerate(declared)]  # fmt: skip
    parts = parts or [{"text": word} for word in words]
    spent: dict[str, Any] = {"promptTokenCount": 12, "cachedContentTokenCount": 5, "candidatesTokenCount": len(words),
                             "totalTokenCount": 12 + len(words)}  # fmt: skip
    if not stream:
        joined = parts if declared else [{"text": "".join(words).rstrip()}]
        return Answer(part_of_gemini(*joined, reason="STOP", usageMetadata=spent), **options)
    told = [spent | {"candidatesTokenCount": min(at + 1, len(words)), "totalTokenCount": 12 + min(at + 1, len(words))}
            for at in range(len(parts))]  # fmt: skip
    pieces = [part_of_gemini(part, usageMetadata=one) for part, one in zip(parts, told, strict=True)]
    return chunks_of_gemini(*pieces, part_of_gemini({"text": ""}, reason="STOP", usageMetadata=spent), **options)


def vectors(request: dict[str, Any], **options: Any) -> Behaviour:
    """Gemini's vectors, whose first number is the length of the text."""
    texts = [one["content"]["parts"][0]["text"] for one in request["requests"]]
    size = request["requests"][0].get("outputDimensionality") or 4
    return Answer({"embeddings": [{"values": [float(len(text)), *[0.5] * (size - 1)]} for text in texts]}, **options)


def response(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An answer of OpenAI's Responses."""
    used = {"input_tokens": 12, "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0}, "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15}  # fmt: skip
    return {"id": "resp_up", "object": "response", "created_at": 1_700_000_000, "status": "completed", "error": None,
            "incomplete_details": None, "model": "up", "output": list(items), "parallel_tool_calls": True, "store": True,
            "tool_choice": "auto", "tools": [], "service_tier": "default", "usage": used} | more  # fmt: skip


def said(text: str, id: str = "msg_up") -> dict[str, Any]:
    """A message in such an answer."""
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": id, "type": "message", "status": "completed", "role": "assistant", "content": content}


def numbered(*values: dict[str, Any], **options: Any) -> Stream:
    """A stream of Responses: events that name their type and have numbers."""
    return events_of(*({**value, "sequence_number": at} for at, value in enumerate(values)), **options)


def responses(request: dict[str, Any], **options: Any) -> Behaviour:
    """The default answer to a request for a response: the last words, or a call of each function."""
    items = request.get("input") or ""
    last = items if isinstance(items, str) else items[-1].get("content", items[-1].get("output")) or ""
    texts = last if isinstance(last, str) else " ".join(str(part.get("text", "")) for part in last)
    words = [word + " " for word in texts.split()] or ["Hello "]
    calls = [{"id": f"fc_{at}", "type": "function_call", "status": "completed", "call_id": f"call_{at}",
              "name": tool["name"], "arguments": json.dumps({"text": "".join(words)})}
             for at, tool in enumerate(request.get("tools") or []) if tool["type"] == "function"]  # fmt: skip
    output = calls or [said("".join(words).rstrip())]
    used = {"input_tokens": 12, "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
            "output_tokens": len(words), "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 12 + len(words)}  # fmt: skip
    whole = response(*output, model=request["model"], usage=used, store=request.get("store", True))
    if not request.get("stream"):
        return Answer(whole, **options)
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    values: list[dict[str, Any]] = [
        {"type": f"response.{word}", "response": begun} for word in ("created", "in_progress")
    ]
    for index, item in enumerate(output):
        place: dict[str, Any] = {"output_index": index}
        within = place | {"item_id": item["id"]}
        if calls:
            values += [
                {"type": "response.output_item.added", **place, "item": item | {"arguments": "", "status": "in_progress"}},
                {"type": "response.function_call_arguments.delta", **within, "delta": item["arguments"]},
                {"type": "response.function_call_arguments.done", **within, "arguments": item["arguments"],
                 "name": item["name"]},
            ]  # fmt: skip
        else:
            part, text = item["content"][0], within | {"content_index": 0}
            values += [
                {"type": "response.output_item.added", **place, "item": item | {"content": [], "status": "in_progress"}},
                {"type": "response.content_part.added", **text, "part": part | {"text": ""}},
                *({"type": "response.output_text.delta", **text, "delta": word, "logprobs": []} for word in words),
                {"type": "response.output_text.done", **text, "text": part["text"], "logprobs": []},
                {"type": "response.content_part.done", **text, "part": part},
            ]  # fmt: skip
        values.append({"type": "response.output_item.done", **place, "item": item})
    return numbered(*values, {"type": "response.completed", "response": whole}, **options)


def embeddings(request: dict[str, Any], **options: Any) -> Behaviour:
    given = request.get("input") or ""
    texts = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    size = request.get("dimensions") or 4
    vectors = [[float(len(str(text)) + place) for place in range(size)] for text in texts]
    encoded: list[Any] = list(vectors)
    if request.get("encoding_format") == "base64":
        encoded = [base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() for vector in vectors]
    tokens = sum(len(str(text).split()) for text in texts)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(encoded)]
    return Answer({"object": "list", "data": data, "model": request.get("model"),
                   "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}, **options)  # fmt: skip


class Upstream:
    """The server. `script(path, a, b)` queues behaviours, one a request; `always(path, a)` stays; else `Default`.

    A behaviour may also be a function of the request's body: `upstream.script(CHAT, lambda body: chat(body, delay_s=1))`.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._scripts: dict[str, deque[Any]] = defaultdict(deque)
        self._always: dict[str, Any] = {}
        self.requests: list[Exchange] = []
        self._connections: set[socket.socket] = set()
        self._numbers = 0
        self._stopping = threading.Event()  # of the present run of requests; `reset` replaces it
        self.port = unused_port()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self._open = True
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The `base_url` of an OpenAI-shaped provider."""
        return f"{self.origin}/v1"

    def script(self, path: str, *behaviours: Behaviour | Callable[[Any], Behaviour]) -> None:
        with self._lock:
            self._scripts[path].extend(behaviours)

    def always(self, path: str, behaviour: Behaviour | Callable[[Any], Behaviour]) -> None:
        with self._lock:
            self._always[path] = behaviour

    @property
    def last(self) -> Exchange:
        return self.requests[-1]

    def wait_for(self, met: Callable[[], object], within_s: float = PATIENCE_S) -> None:
        """Wait until `met()`; looked at whenever something happened here, and every 10 ms."""
        deadline = time.monotonic() + within_s
        with self._lock:
            while not met():
                if time.monotonic() > deadline:
                    raise AssertionError(f"did not happen within {within_s} s; requests: {self.requests}")
                self._lock.wait(0.01)

    def wait_for_requests(self, count: int, within_s: float = PATIENCE_S) -> list[Exchange]:
        self.wait_for(lambda: len(self.requests) >= count, within_s)
        return self.requests

    def wait_for_client_gone(self, exchange: Exchange, within_s: float = PATIENCE_S) -> float:
        """When the client closed the connection of a request that was still being answered."""
        self.wait_for(lambda: exchange.client_gone_at is not None, within_s)
        assert exchange.client_gone_at is not None
        return exchange.client_gone_at

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Connections are refused meanwhile, and those that are open are closed."""
        self._close_listener()
        self.close_connections()
        try:
            yield
        finally:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close_connections(self) -> None:
        """End every connection, also the idle ones that a client keeps for later."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Forget scripts and requests, and let go of whoever still hangs."""
        self._stopping.set()
        with self._lock:
            self._stopping = threading.Event()
            self._scripts.clear()
            self._always.clear()
            self.requests = []

    def stop(self) -> None:
        self._stopping.set()
        self._close_listener()
        self.close_connections()

    def _close_listener(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.add(connection)
                self._numbers += 1
                number = self._numbers
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection, connection.makefile("rb") as reader:
                while (exchange := _read_request(reader, connection, number)) is not None:
                    if not self._answer(exchange, connection):
                        return
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _answer(self, exchange: Exchange, connection: socket.socket) -> bool:
        path = exchange.path.partition("?")[0]
        with self._lock:
            queue = self._scripts.get(path)
            behaviour = queue.popleft() if queue else self._always.get(path) or Default()
            stopping = self._stopping
            self.requests.append(exchange)
            self._lock.notify_all()
        try:
            if not isinstance(behaviour, Behaviour):
                behaviour = behaviour(exchange.json)
            reusable = behaviour.play(exchange, Wire(connection, exchange, stopping))
            return reusable and exchange.headers.get("connection", "").lower() != "close" and not stopping.is_set()
        except ClientGone:
            return False
        finally:
            exchange.ended_at = time.monotonic()
            with self._lock:
                self._lock.notify_all()


def _read_request(reader: Any, connection: socket.socket, number: int) -> Exchange | None:
    line = reader.readline(65_537)
    if not line.strip():
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := reader.readline(65_537)) not in (b"\r\n", b"\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    began_at = time.monotonic()
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts = []
        while size := int(reader.readline().split(b";")[0], 16):
            parts.append(reader.read(size))
            reader.readline()
        while reader.readline().strip():
            pass
        body = b"".join(parts)
    else:
        body = reader.read(int(headers.get("content-length", 0)))
    return Exchange(method, path, headers, body, began_at, number)


_claims: list[int] = []  # files that stay locked until this process ends


def unused_port() -> int:
    """A port of loopback for this process alone: no other test process is given it, and since it lies below those that
    the kernel gives to connections going out, nothing else comes by it either, also while nobody listens."""
    folder = Path(tempfile.gettempdir()) / "portico-ports"
    folder.mkdir(exist_ok=True)
    for port in random.sample(range(20_000, 30_000), 10_000):
        claim = os.open(folder / str(port), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            os.close(claim)
            continue
        _claims.append(claim)
        return port
    raise RuntimeError("no port is left")
