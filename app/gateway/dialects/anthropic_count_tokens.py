"""`POST /v1/messages/count_tokens`: the same without a limit and without an answer."""

from __future__ import annotations

from typing import ClassVar

from app.gateway.dialects.anthropic_messages import AnthropicMessages, MessagesRequest


class CountRequest(MessagesRequest, kw_only=True):
    """What could be asked."""

    required: ClassVar[tuple[str, ...]] = ("model", "messages")


class AnthropicCountTokens(AnthropicMessages):
    """Its bodies and errors are those of messages."""

    request: ClassVar[type[MessagesRequest]] = CountRequest
    replaced: ClassVar[tuple[str, ...]] = ("model",)


DIALECT = AnthropicCountTokens()
