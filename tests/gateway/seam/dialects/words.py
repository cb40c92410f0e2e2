"""A dialect that shares nothing with the others: a client asks in one member and hears lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from app.directory import Model
from app.gateway.dialects.base import Asked, Dialect
from app.gateway.dialects.openai import JsonRequest, added, parse, size_of
from app.gateway.envelope import open_envelope
from app.gateway.errors import ApiError
from app.metering.pricing import TokenBound
from app.providers.base import Exchange, UpstreamError, UpstreamRequest
from app.providers.conversation import Conversation, Finish, Text, Turn


class Question(JsonRequest, kw_only=True):
    """What is asked, and at most how many tokens may answer it."""

    ask: str
    at_most: int
    stream: bool | None = None

    required: ClassVar[tuple[str, ...]] = ("model", "ask", "at_most")

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        return TokenBound(input=size + added(model), output=self.at_most)


class Words(Dialect):
    """Questions and lines."""

    name: ClassVar[str] = "words"
    end: ClassVar[bytes] = b"that was all\n"
    id_headers: ClassVar[tuple[str, ...]] = ("x-number",)

    def read(self, body: Any) -> Asked:
        members, values = open_envelope(body)
        return Asked(parse(Question, values, members), members, size_of(body), None)

    def error(self, error: ApiError, request_id: str) -> bytes:
        return f"no ({error.status}): {error.message}\n".encode()

    def cut(
        self, message: str, error: UpstreamError | ApiError | None = None, sent: tuple[bytes, bytes] = (b"", b"")
    ) -> bytes:
        return f"cut: {message}\n".encode()

    def conversation(self, request: UpstreamRequest) -> Conversation:
        return Conversation(turns=(Turn("user", (Text(request.parsed.ask),)),))

    def answer(self, request: UpstreamRequest, exchange: Exchange) -> bytes:
        texts = [part.text for part in exchange.reply().parts if isinstance(part, Text)]
        return msgspec.json.encode({"model": request.model, "said": texts, "cost": exchange.conclude().counts})

    def events(self, request: UpstreamRequest, exchange: Exchange) -> Iterator[bytes]:
        for event in exchange.neutral_events():
            if isinstance(event, Text):
                yield f"word {event.text}\n".encode()
            elif isinstance(event, Finish):
                yield f"because {event.reason}\n".encode()


DIALECT = Words()
