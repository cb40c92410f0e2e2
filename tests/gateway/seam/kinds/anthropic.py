"""Anthropic as an upstream: it hears a conversation, and its stream becomes neutral events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from app.directory import Capability, Deployment
from app.providers import usage
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter, CheckResult, Exchange, UpstreamError, UpstreamRequest, Usage
from app.providers.conversation import (
    Conversation,
    Event,
    Finish,
    FinishReason,
    Media,
    Part,
    Reasoning,
    Reply,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolResult,
)  # fmt: skip
from app.providers.http import Answer, Pool
from app.providers.http_errors import error_of, seconds_in
from app.providers.lenient_json import read_json
from app.providers.openai import ApiKey, BaseUrl, verdict_of
from app.providers.settings import Settings
from app.providers.sse import EventReader

REASONS: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "refusal": "content_filter",
}  # fmt: skip
MAX_ERROR_BYTES = 1 << 20
DEFAULT_MAX_TOKENS = 4096


class AnthropicSettings(Settings):
    """What Anthropic can be told."""

    base_url: BaseUrl = "https://api.anthropic.com"
    api_key: ApiKey = None


class AnthropicExchange(Exchange):
    """One answer of Anthropic's."""

    speaks = "anthropic_messages"

    def __init__(self, answer: Answer, request: UpstreamRequest, secret: str | None) -> None:
        self._answer = answer
        self._request = request
        self._secret = secret
        self._body = b""
        self._tally = usage.Tally(request)
        self.finish_reason = None

    @property
    def usage(self) -> Usage:
        return self._tally.usage

    def conclude(self) -> Usage:
        return self._tally.conclude()

    def receive(self) -> None:
        self._body = self._answer.read_object(5.0)

    def body(self) -> bytes:
        self.reply()
        return self._body

    def events(self) -> Iterator[bytes]:
        raise NotImplementedError("no client speaks this dialect yet")

    def reply(self) -> Reply:
        value = read_json(self._body)
        if not isinstance(value, dict) or not isinstance(value.get("content"), list):
            raise error_of(502, self._body, self._secret, otherwise="The provider's answer can't be read.")
        self._tally.hear_whole(self._body)
        self._tell(value.get("usage"))
        self.conclude()
        finish = self._finish(value.get("stop_reason"))
        return Reply(parts=tuple(_part(block) for block in value["content"]), finish=finish)

    def neutral_events(self) -> Iterator[Event]:
        calls = -1
        reason: FinishReason | None = None
        for name, data in EventReader(self._answer.read):
            value = read_json(data)
            if not isinstance(value, dict):
                continue
            match value.get("type"):
                case "message_start":
                    self._tell(value["message"].get("usage"), is_first=True)
                case "content_block_start" if value["content_block"]["type"] == "tool_use":
                    calls += 1
                    block = value["content_block"]
                    self._hear(block["name"])
                    yield ToolCallDelta(calls, block["id"], block["name"])
                case "content_block_delta":
                    if (event := _delta(value["delta"], calls)) is not None:
                        self._hear(event.arguments if isinstance(event, ToolCallDelta) else event.text)
                        yield event
                case "message_delta":
                    self._tell(value.get("usage"))
                    reason = self._finish(value["delta"].get("stop_reason"))
                case "message_stop":
                    self._answer.finish()
                    break
                case "error":
                    raise error_of(502, data, self._secret)
            if name == b"error":
                raise error_of(502, data, self._secret)
        if reason is None:
            raise UpstreamError("The provider's stream ended before it was complete.")
        yield Finish(reason)

    def _hear(self, text: str) -> None:
        self._tally.hear({"text": msgspec.Raw(msgspec.json.encode(text))})

    def _tell(self, told: Any, *, is_first: bool = False) -> None:
        """What stands beside the input (cache reads and writes) is part of the prompt here. What the first event says of
        the output is a beginning and no count."""
        if not isinstance(told, dict):
            return
        figures: dict[str, Any] = {}
        cached, written = told.get("cache_read_input_tokens") or 0, told.get("cache_creation_input_tokens") or 0
        if told.get("input_tokens") is not None:
            figures["prompt_tokens"] = told["input_tokens"] + cached + written
            figures["prompt_tokens_details"] = {"cached_tokens": cached, "cache_write_tokens": written}
        if not is_first:
            figures["completion_tokens"] = told.get("output_tokens")
        self._tally.tell(msgspec.json.encode(figures))

    def _finish(self, told: Any) -> FinishReason:
        self.finish_reason = REASONS.get(told, "stop")
        return REASONS.get(told, "stop")

    def close(self) -> None:
        self._answer.close()


class Anthropic(Adapter):
    """Anthropic's messages."""

    title: ClassVar[str] = "Anthropic"
    Settings: ClassVar[type[Settings]] = AnthropicSettings
    abilities: ClassVar[frozenset[Capability]] = frozenset(("chat",))
    settings: AnthropicSettings

    def __init__(self, settings: AnthropicSettings, *, policy: AddressPolicy) -> None:
        super().__init__(settings, policy=policy)
        self._pool = Pool(self.dial())

    def open(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        body = body_of(request.conversation()) | {
            "model": deployment.upstream_model,
            "max_tokens": request.max_output or DEFAULT_MAX_TOKENS,
            "stream": request.stream,
        }
        return AnthropicExchange(self._ask("POST", "/v1/messages", body), request, self.settings.api_key)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """An answer with a good status. Raises `UpstreamError`."""
        headers = {"Content-Type": "application/json", "anthropic-version": "2023-06-01"}
        if self.settings.api_key:
            headers["x-api-key"] = self.settings.api_key
        answer = self._pool.request(method, path, headers, [msgspec.json.encode(body)] if body else ())
        if answer.status == 200:
            return answer
        try:
            said = answer.read_all(MAX_ERROR_BYTES, time.monotonic() + self.settings.timeout_s)
        finally:
            answer.close()
        raise error_of(
            answer.status, said, self.settings.api_key, retry_after_s=seconds_in(answer.header("retry-after"))
        )

    def check(self, *, model: str | None, prompt: str | None, parameters: dict[str, Any]) -> CheckResult:
        started = time.monotonic()
        try:
            if model is None:
                self._ask("GET", "/v1/models").read_all()
            else:
                said = [{"role": "user", "content": prompt or "Hello"}]
                body = {"max_tokens": 16, **parameters, "model": model, "messages": said}
                self._ask("POST", "/v1/messages", body).read_all()
        except UpstreamError as error:
            return CheckResult(result=verdict_of(error), latency_ms=_ms_since(started), detail=error.message)
        return CheckResult(result="ok", latency_ms=_ms_since(started), detail="The provider answers.")

    def close(self) -> None:
        self._pool.close()


def _ms_since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)


def body_of(conversation: Conversation) -> dict[str, Any]:
    """A conversation as Anthropic hears it, without its model and limit."""
    systems = [
        part.text
        for turn in conversation.turns
        if turn.role == "system"
        for part in turn.parts
        if isinstance(part, Text)
    ]
    turns = [turn for turn in conversation.turns if turn.role != "system"]
    body: dict[str, Any] = {
        "messages": [{"role": turn.role, "content": [_block(part) for part in turn.parts]} for turn in turns]
    }
    if systems:
        body["system"] = "\n\n".join(systems)
    if conversation.tools:
        body["tools"] = [
            {"name": tool.name, "input_schema": tool.parameters}
            | ({"description": tool.description} if tool.description else {})
            for tool in conversation.tools
        ]
    if conversation.stop:
        body["stop_sequences"] = list(conversation.stop)
    for name in ("temperature", "top_p"):
        if (value := getattr(conversation, name)) is not None:
            body[name] = value
    return body


def _block(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Reasoning():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
        case Media():
            source = {"type": "url", "url": part.url} if part.url else {
                "type": "base64", "media_type": part.media_type, "data": part.data,
            }  # fmt: skip
            return {"type": part.kind, "source": source}
        case ToolCall():
            return {
                "type": "tool_use",
                "id": part.id,
                "name": part.name,
                "input": read_json(part.arguments.encode()) or {},
            }
        case ToolResult():
            content = [_block(inner) for inner in part.parts]
            return {"type": "tool_result", "tool_use_id": part.id, "content": content, "is_error": part.is_error}


def _part(block: dict[str, Any]) -> Text | Reasoning | ToolCall:
    match block["type"]:
        case "tool_use":
            return ToolCall(block["id"], block["name"], msgspec.json.encode(block["input"]).decode())
        case "thinking":
            return Reasoning(block["thinking"], block.get("signature"))
    return Text(block.get("text") or "")


def _delta(delta: dict[str, Any], call: int) -> Text | Reasoning | ToolCallDelta | None:
    match delta.get("type"):
        case "text_delta":
            return Text(delta["text"])
        case "thinking_delta":
            return Reasoning(delta["thinking"])
        case "input_json_delta":
            return ToolCallDelta(call, arguments=delta["partial_json"])
    return None


ADAPTER = Anthropic
