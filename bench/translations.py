"""What it costs that a client and its upstream speak different dialects, without any socket: CPU-µs a request and a chunk.

python -m bench.translations
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import msgspec

from app.directory import Deployment
from app.gateway.dialects import dialect
from app.providers.addresses import AddressPolicy
from app.providers.anthropic import Anthropic, AnthropicExchange, AnthropicSettings, _put
from app.providers.anthropic_conversation import body_of
from app.providers.base import Exchange, UpstreamRequest
from app.providers.gemini import GeminiExchange
from app.providers.gemini_conversation import TAKES
from app.providers.gemini_conversation import body_of as gemini_body_of
from app.providers.http import Answer
from app.providers.openai import OpenAI, OpenAIExchange, OpenAISettings
from app.providers.openai_responses import LIMIT, ResponsesExchange
from app.providers.openai_responses import body_of as body_for_responses
from app.providers.signatures import Signatures
from app.runtime.jsonbody import object_of
from bench.answers import CHUNKS, DONE, Canned, chunk, cost_us

TURNS = 40
CHAT, MESSAGES, RESPONSES, GEMINI = "openai_chat", "anthropic_messages", "openai_responses", "gemini"
UP = Deployment(id="d", provider_id="p", upstream_model="up")
POLICY = AddressPolicy(allow_private=True)
WORDS = "There is a folder with many files, and one of them says what is to be done next. " * 4


def body(name: str) -> bytes:
    """An agent's request in a dialect: instructions, twenty tools and forty turns."""
    schema = {"type": "object", "properties": {"path": {"type": "string", "description": WORDS}}}
    turns = [{"role": "assistant" if turn % 2 else "user", "content": WORDS} for turn in range(TURNS - 1)]
    if name == CHAT:
        tools: list[Any] = [{"type": "function", "function": {"name": f"tool_{at}", "description": WORDS, "parameters": schema}}
                            for at in range(20)]  # fmt: skip
        said: dict[str, Any] = {"messages": [{"role": "system", "content": WORDS}, *turns]}
    elif name == RESPONSES:
        tools = [
            {"type": "function", "name": f"tool_{at}", "description": WORDS, "parameters": schema} for at in range(20)
        ]
        said = {"instructions": WORDS, "input": turns}
    else:
        tools = [{"name": f"tool_{at}", "description": WORDS, "input_schema": schema} for at in range(20)]
        said = {"system": [{"type": "text", "text": WORDS}], "messages": turns}
    limit = LIMIT if name == RESPONSES else "max_tokens"
    told = {"model": "small", limit: 32_000, "stream": True, "tools": tools, **said}
    return json.dumps(told, separators=(",", ":")).encode()


def request(name: str, sent: bytes) -> UpstreamRequest:
    spoken = dialect(name)
    asked = spoken.read(sent)
    return UpstreamRequest(
        capability="chat", dialect=name, model="small", members=asked.members, parsed=asked.checked, stream=True,
        max_output=32_000, translate=spoken.conversation, raw=asked.raw,
    )  # fmt: skip


SIGNATURES = Signatures()
OPENAI = OpenAI(OpenAISettings(), policy=POLICY)
ANTHROPIC = Anthropic(AnthropicSettings(), policy=POLICY)


def up(client: str, upstream: str, sent: bytes) -> bytes:
    """From a client's body to the upstream's."""
    asked = request(client, sent)
    if upstream == RESPONSES:
        return b"".join(body_for_responses(asked, "up", {}, ()))
    if upstream == CHAT:
        return b"".join(object_of(OPENAI._members(asked, UP)))
    if upstream == GEMINI:
        return msgspec.json.encode(gemini_body_of(asked.conversation(TAKES), "gemini-3-flash", 32_000, SIGNATURES.of))
    if client == MESSAGES:
        return b"".join(_put(asked, {"model": b'"up"', "max_tokens": b"32000"}))
    return msgspec.json.encode(body_of(asked, asked.conversation(), "up", 32_000))


def events() -> Iterator[bytes]:
    """Anthropic's stream, an event a piece."""
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "up",
        "content": [],
        "usage": {"input_tokens": 5},
    }
    begun = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    told: list[dict[str, Any]] = [{"type": "message_start", "message": message}, begun]
    told += [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f" word{at}"}}
             for at in range(CHUNKS)]  # fmt: skip
    told += [{"type": "content_block_stop", "index": 0}]
    told += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": CHUNKS}}]
    for event in (*told, {"type": "message_stop"}):
        yield f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def chunks() -> Iterator[bytes]:
    """Gemini's stream, a chunk a piece, each with the usage so far."""
    for at in range(CHUNKS):
        candidate = {"content": {"parts": [{"text": f" word{at}"}], "role": "model"}, "index": 0}
        candidate |= {"finishReason": "STOP"} if at == CHUNKS - 1 else {}
        text = [{"modality": "TEXT", "tokenCount": 5}]
        told = {
            "promptTokenCount": 5,
            "candidatesTokenCount": at + 1,
            "totalTokenCount": at + 6,
            "promptTokensDetails": text,
        }
        whole = {
            "candidates": [candidate],
            "usageMetadata": told,
            "modelVersion": "up",
            "responseId": "mAitaLmkHPPlz7IP",
        }
        yield f"data: {json.dumps(whole, separators=(',', ':'))}\n\n".encode()


def responses() -> Iterator[bytes]:
    """A stream of Responses, an event a piece."""
    response = {"id": "resp_1", "object": "response", "model": "up", "status": "in_progress", "output": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    told: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    told += [
        {"type": "response.output_text.delta", **place, "delta": f" word{at}", "logprobs": []} for at in range(CHUNKS)
    ]
    usage = {"input_tokens": 5, "output_tokens": CHUNKS}
    told += [{"type": "response.completed", "response": response | {"status": "completed", "usage": usage}}]
    for number, event in enumerate(told):
        said = json.dumps(event | {"sequence_number": number}, separators=(",", ":"))
        yield f"event: {event['type']}\ndata: {said}\n\n".encode()


COMPACT: dict[str, Any] = {"separators": (",", ":")}
STREAMS = {
    CHAT: [*(chunk(f" word{at}", **COMPACT) for at in range(CHUNKS)), chunk("", "stop", **COMPACT), DONE],
    MESSAGES: list(events()),
    GEMINI: list(chunks()),
    RESPONSES: list(responses()),
}


def down(client: str, upstream: str, asked: UpstreamRequest) -> None:
    """From an upstream's stream to the client's."""
    canned = cast("Answer", Canned(STREAMS[upstream]))
    if upstream == GEMINI:
        exchange: Exchange = GeminiExchange(canned, asked, None, 5.0, SIGNATURES)
    else:
        kind: Any = {CHAT: OpenAIExchange, MESSAGES: AnthropicExchange, RESPONSES: ResponsesExchange}[upstream]
        exchange = kind(canned, asked, None, 60.0)
    for _ in exchange.events() if client == upstream else dialect(client).events(asked, exchange):
        pass


def main() -> None:
    for client in (CHAT, MESSAGES, RESPONSES):
        sent = body(client)
        asked = request(client, sent)
        for upstream in (CHAT, MESSAGES, GEMINI, RESPONSES):
            if upstream == RESPONSES != client:  # others are asked as chats there
                continue
            request_us = cost_us(partial(up, client, upstream, sent), 1)
            chunk_us = cost_us(partial(down, client, upstream, asked), CHUNKS)
            way = f"{client} at {upstream}"
            print(f"{way:42}{request_us:8.0f} µs a request of {len(sent)} B{chunk_us:8.2f} µs a chunk")


if __name__ == "__main__":
    main()
