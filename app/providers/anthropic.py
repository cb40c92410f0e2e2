"""Anthropic, and every upstream that speaks its wire format.

For clients of the same dialect a body goes up byte for byte, but for the model's name and the limit, with their betas; answers
come back so too, but for the model's name. Others are translated (`app.providers.anthropic_conversation`).
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from app.directory import Capability, Deployment
from app.providers import model_list, usage
from app.providers.addresses import AddressPolicy
from app.providers.anthropic_conversation import REASONS, body_of, event_of_start, events_of_delta, part_of
from app.providers.anthropic_usage import INPUT, Bill, usage_object
from app.providers.base import Adapter, CheckResult, Exchange, Pieces, UpstreamError, UpstreamRequest, Usage
from app.providers.conversation import Event, Finish, FinishReason, Reply, Silence, Text, ToolCallDelta
from app.providers.http import Answer, Pool
from app.providers.http_errors import as_it_came, error_of, seconds_in
from app.providers.lenient_json import WholeText, read_json, string_in
from app.providers.model_list import ListedModel
from app.providers.model_name import ModelName
from app.providers.openai import GRACE_S, MAX_ERROR_BYTES, UNREADABLE, ApiKey, ApiKeyEnv
from app.providers.settings import ADDRESS, Settings
from app.providers.sse import COMMENT, EventReader
from app.providers.trial import try_out
from app.runtime.jsonbody import object_of

SPEAKS = "anthropic_messages"
VERSION = "2023-06-01"
# Where an upstream says that its own account is at fault, and not the request.
_OUR_ACCOUNT = re.compile(r"credit balance|billing|usage limits", re.IGNORECASE)


class AnthropicSettings(Settings):
    """What an Anthropic-shaped upstream can be told."""

    base_url: Annotated[
        str, Meta(title="Base URL", description="The address without /v1.", max_length=500, extra=ADDRESS)
    ] = "https://api.anthropic.com"
    api_key: ApiKey = None
    api_key_env: ApiKeyEnv = None

    @property
    def secret(self) -> str | None:
        return os.environ.get(self.api_key_env) if self.api_key_env else self.api_key


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()
    partial_json: msgspec.Raw = msgspec.Raw()
    stop_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    """What the gateway needs of an event."""

    type: str = ""
    delta: _Delta | None = None
    usage: msgspec.Raw = msgspec.Raw()


_event = msgspec.json.Decoder(_Event)
PING = b'{"type": "ping"}'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
SILENCE = _Event(type="ping")  # nothing came for a while, or a comment
# The pieces of an answer, and the member of a delta that has the text.
_SAID = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class AnthropicExchange(Exchange):
    """One answer of Anthropic's whose head was good.

    It is whole when it says why it ended, and it is none without that.
    """

    speaks = SPEAKS

    def __init__(self, answer: Answer, request: UpstreamRequest, secret: str | None, timeout_s: float) -> None:
        self._answer = answer
        self._request = request
        self._secret = secret
        self._grace_s = min(GRACE_S, timeout_s)
        self._name = ModelName(request.model)
        self._tally = usage.Tally(request)
        self._bill = Bill()
        self._body = b""
        self._until: float | None = None  # until when more is waited for, once the stream may end
        self._reason: FinishReason | None = None
        self.finish_reason = None

    @property
    def usage(self) -> Usage:
        return self._flagged(self._tally.usage)

    def conclude(self) -> Usage:
        return self._flagged(self._tally.conclude())

    def _flagged(self, used: Usage) -> Usage:
        return used if self._bill.is_split else msgspec.structs.replace(used, estimated=True)

    def receive(self) -> None:
        self._body = self._answer.read_object(self._grace_s)

    def body(self) -> bytes:
        body = self._body
        self._take_whole()
        if self._tally.usage.estimated:
            self._tally.conclude()
            body = usage.with_member(body, "usage", self._charged())
        try:
            return self._name.put_once(body)
        except ValueError:
            raise UpstreamError(UNREADABLE) from None

    def reply(self) -> Reply:
        blocks = self._take_whole()
        parts = tuple(part for block in blocks if (part := part_of(block)) is not None)
        assert self._reason is not None
        return Reply(parts=parts, finish=self._reason)

    def _take_whole(self) -> list[Any]:
        """Count the whole answer; its blocks."""
        value = read_json(self._body)
        if not isinstance(value, dict) or not isinstance(value.get("content"), list):
            raise self._none(self._body)
        self._tally.hear_whole(_as_choice(value["content"]))
        self._tell(json.dumps(value.get("usage")).encode())
        self._finish(value.get("stop_reason"))
        self._tally.conclude()
        blocks: list[Any] = value["content"]
        return blocks

    def events(self) -> Pieces:
        started = began = False
        last = STOP
        held = b""  # the first event, until something comes of it
        for name, data, event in self._heard():
            if event is SILENCE and not started:
                continue
            kind = event.type or (name or b"").decode("utf-8", "replace")
            if kind == "message_start":
                data = self._named(data)
            elif kind == "message_delta" and self._tally.usage.estimated and self._reason is not None:
                self._tally.conclude()
                data = usage.with_member(data, "usage", self._charged())
            piece = b"event: %b\ndata: %b\n\n" % (kind.encode(errors="replace"), data)  # JSON may hold half a pair
            if kind == "message_stop":
                last = piece
            elif began:
                yield piece
            elif not started:
                started = kind == "message_start"
                held += piece
            else:
                began = True
                yield held + piece
                held = b""
        return held + last

    def neutral_events(self) -> Iterator[Event]:
        call = current = -1  # calls so far, and the one that is open
        began = False
        clean = WholeText().add
        for _, data, event in self._heard():
            if event is SILENCE or event.type == "ping":
                if began:
                    yield Silence()
                continue
            began = True
            if event.type == "content_block_start":
                value = read_json(data)
                begun = event_of_start(value.get("content_block"), call + 1)
                current = -1
                if isinstance(begun, ToolCallDelta):
                    call += 1
                    current = call
                if begun is not None:
                    yield begun
            elif event.type == "content_block_delta":
                delta = event.delta
                if delta is not None and delta.type == "text_delta" and len(delta.text):  # nearly all there are
                    if text := clean("text", string_in(bytes(delta.text))):
                        yield Text(text)
                else:
                    yield from events_of_delta(read_json(data).get("delta"), current, clean)
        assert self._reason is not None
        yield Finish(self._reason)

    def _heard(self) -> Iterator[tuple[bytes | None, bytes, _Event]]:
        """The events with their names and what was read of them, counted. Raises `UpstreamError` for a failure, and for a
        stream that does not say why it ended."""
        reader = EventReader(self._next_piece, comments=True)
        for name, data in reader:
            if name == COMMENT:
                yield b"ping", PING, SILENCE
                continue
            event = _read(data)
            if event is None or not (event.type or name):
                continue
            if name == b"error" or event.type == "error":
                if self._until is not None:
                    break
                raise self._none(data)
            if b"\n" in data:  # written over several lines, as JSON may be
                data = data.replace(b"\n", b" ")
            delta = event.delta
            if event.type == "content_block_delta" and delta is not None:
                member = _SAID.get(delta.type)
                if member is not None:
                    self._hear("content" if member == "text" else member, getattr(delta, member))
            elif event.type == "content_block_start":
                self._hear_start(data)
            elif event.type == "message_start":
                self._start(data)
            elif event.type == "message_delta":
                self._tell(bytes(event.usage))
                if delta is not None and delta.stop_reason is not None:
                    self._finish(delta.stop_reason)
                    self._until = time.monotonic() + self._grace_s
            elif event.type == "message_stop":
                self._answer.finish()
                self._until = self._until or time.monotonic()
                if self._reason is not None:
                    yield name, data, event
                break
            yield name, data, event
        if self._reason is None:
            raise error_of(
                502, reader.stray, self._secret, otherwise="The provider's stream ended before it was complete."
            )

    def _next_piece(self) -> bytes | None:
        return self._answer.read_stream(self._request.keep_alive_s, self._until)

    def _hear(self, member: str, text: msgspec.Raw) -> None:
        if len(text):
            self._tally.hear({member: text})

    def _hear_start(self, data: bytes) -> None:
        """What a block says as it begins: the name of a tool, and all that comes in no deltas."""
        value = read_json(data)
        block = value.get("content_block") if isinstance(value, dict) else None
        if isinstance(block, dict):
            said = {name: inner for name, inner in block.items() if name in ("name", "text", "thinking") and inner}
            if said:
                self._tally.hear({name: msgspec.Raw(json.dumps(inner).encode()) for name, inner in said.items()})

    def _start(self, data: bytes) -> None:
        value = read_json(data)
        message = value.get("message") if isinstance(value, dict) else None
        if isinstance(message, dict):
            self._tell(json.dumps(message.get("usage")).encode(), is_first=True)

    def _named(self, data: bytes) -> bytes:
        """The first event with the portal's name of the model, which stands within its message."""
        try:
            return self._name.put_within(data, "message")
        except ValueError:
            raise UpstreamError(UNREADABLE) from None

    def _tell(self, raw: bytes, *, is_first: bool = False) -> None:
        if raw in (b"", b"null"):
            return
        self._tally.take(self._bill.add(raw, is_first=is_first))
        self._tally.tell_tier(self._bill.tier)
        self._tally.note_unpriced(self._bill.unpriced)

    def _charged(self) -> bytes:
        """What is charged, as a usage object of this dialect."""
        return msgspec.json.encode(usage_object(self._tally.usage))

    def _finish(self, told: Any) -> None:
        self._reason = self.finish_reason = REASONS.get(told, "stop") if isinstance(told, str) else "stop"

    def _none(self, said: bytes) -> UpstreamError:
        """The failure of an attempt whose answer is none, with the reason that it gives."""
        error = error_of(502, said, self._secret, otherwise=UNREADABLE)
        error.original = _original(said, self._secret)
        return error

    def close(self) -> None:
        self._answer.close()


def _read(data: bytes) -> _Event | None:
    """An event, None for what is no object."""
    try:
        return _event.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = read_json(data)
    if not isinstance(value, dict):
        return None
    delta, kind = value.get("delta"), value.get("type")
    event = _Event(type=kind if isinstance(kind, str) else "")
    if "usage" in value:
        event.usage = msgspec.Raw(json.dumps(value["usage"]).encode())
    if isinstance(delta, dict):
        reason, kind = delta.get("stop_reason"), delta.get("type")
        event.delta = _Delta(
            type=kind if isinstance(kind, str) else "",
            stop_reason=reason if isinstance(reason, str) else None,
            **{
                member: msgspec.Raw(json.dumps(delta[member]).encode())
                for member in _SAID.values()
                if isinstance(delta.get(member), str)
            },
        )
    return event


def _as_choice(blocks: list[Any]) -> bytes:
    """The blocks of a whole answer as the text of a choice, for its tokens to be counted if nobody tells them."""
    return json.dumps({"choices": [{"message": {"content": blocks}}]}).encode()


def _original(said: bytes, secret: str | None) -> tuple[str, bytes] | None:
    """An error as the upstream wrote it, for clients who know it by its words; None where it is not safe to show."""
    value = read_json(said)
    is_one = isinstance(value, dict) and value.get("type") == "error"
    return as_it_came(SPEAKS, said, secret) if is_one else None


class Anthropic(Adapter):
    """Any upstream that speaks Anthropic's wire format."""

    title: ClassVar[str] = "Anthropic"
    Settings: ClassVar[type[Settings]] = AnthropicSettings
    abilities: ClassVar[frozenset[Capability]] = frozenset(("chat",))
    settings: AnthropicSettings

    def __init__(self, settings: AnthropicSettings, *, policy: AddressPolicy) -> None:
        super().__init__(settings, policy=policy)
        self._pool = Pool(self.dial())
        self._root = "" if settings.base_url.rstrip("/").endswith("/v1") else "/v1"

    def speaks(self, dialect: str) -> bool:
        return dialect == SPEAKS

    def open(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        limit = request.max_output or request.usual_output
        if request.dialect == SPEAKS:
            values = {"model": msgspec.json.encode(deployment.upstream_model), "max_tokens": b"%d" % limit}
            body = _put(request, values)
        else:
            asked = body_of(request, request.conversation(), deployment.upstream_model, limit)
            body = [msgspec.json.encode(asked)]
        answer = self._ask("POST", "/messages", body, request)
        return AnthropicExchange(answer, request, self.settings.secret, self.settings.timeout_s)

    def count_tokens(self, request: UpstreamRequest, deployment: Deployment) -> int | None:
        if request.dialect != SPEAKS:
            return None
        body = _put(request, {"model": msgspec.json.encode(deployment.upstream_model)})
        answer = self._ask("POST", "/messages/count_tokens", body, request)
        try:
            value = read_json(answer.read_all())
        finally:
            answer.close()
        return usage.count_in(value.get(INPUT)) if isinstance(value, dict) else None

    def _ask(
        self, method: str, path: str, body: Sequence[bytes] = (), request: UpstreamRequest | None = None
    ) -> Answer:
        """An answer with a good status. Raises `UpstreamError`."""
        headers = {"Content-Type": "application/json", "anthropic-version": VERSION}
        if request is not None:
            if request.dialect == SPEAKS:
                headers |= request.headers
            headers["Accept"] = "text/event-stream" if request.stream else "application/json"
        if self.settings.secret:
            headers["x-api-key"] = self.settings.secret
        answer = self._pool.request(method, self._root + path, headers, body)
        if 200 <= answer.status < 300:
            return answer
        raise self._refusal(answer)

    def _refusal(self, answer: Answer) -> UpstreamError:
        try:
            body = answer.read_all(MAX_ERROR_BYTES, time.monotonic() + self.settings.timeout_s)
        except UpstreamError:  # the status has told what matters
            body = b""
        finally:
            answer.close()
        secret = self.settings.secret
        error = error_of(answer.status, body, secret, retry_after_s=seconds_in(answer.header("retry-after")))
        error.original = _original(body, secret)
        if error.refused and _OUR_ACCOUNT.search(error.message):
            error.refused = False
        return error

    def check(self, *, model: str | None, prompt: str | None, parameters: dict[str, Any]) -> CheckResult:
        ask = None if model is None else lambda: self._try(model, prompt or "Hello", parameters)
        return try_out(self.list_models, ask)

    def _try(self, model: str, prompt: str, parameters: dict[str, Any]) -> None:
        said = [{"role": "user", "content": prompt}]
        body = {"max_tokens": 16, **parameters, "model": model, "messages": said, "stream": False}
        answer = self._ask("POST", "/messages", [msgspec.json.encode(body)])
        try:
            text = answer.read_all()
        finally:
            answer.close()
        value = read_json(text)
        if not isinstance(value, dict) or not isinstance(value.get("content"), list):
            otherwise = "The provider's answer can't be read; is the base URL right?"
            raise error_of(502, text, self.settings.secret, otherwise=otherwise)

    def list_models(self) -> tuple[ListedModel, ...] | None:
        try:
            answer = self._ask("GET", "/models?limit=1000")
        except UpstreamError as error:
            if error.status in (404, 405):
                return None
            raise
        try:
            return model_list.read(answer.read_all(model_list.MAX_BYTES, time.monotonic() + self.settings.timeout_s))
        finally:
            answer.close()

    def close(self) -> None:
        self._pool.close()


def _put(request: UpstreamRequest, values: dict[str, bytes]) -> Sequence[bytes]:
    """The client's own body with these values: as it came, or else member by member."""
    if request.raw is not None and request.raw.places.keys() >= values.keys():
        return request.raw.put(values)
    return object_of(request.members | values)


ADAPTER = Anthropic
