"""What exchanges with OpenAI-shaped upstreams have in common, where an answer is no chat: how it is read, and its usage."""

from __future__ import annotations

from app.providers import usage
from app.providers.base import Exchange, UpstreamError, UpstreamRequest, Usage
from app.providers.http import Answer
from app.providers.http_errors import error_of
from app.providers.openai_events import UNREADABLE


class TalliedExchange(Exchange):
    """One request to an upstream whose head was good. Its tokens are tallied; `complete` adds what is known besides."""

    def __init__(
        self, answer: Answer, request: UpstreamRequest, speaks: str, secret: str | None, grace_s: float
    ) -> None:
        self._answer = answer
        self._secret = secret
        self._grace_s = grace_s
        self.speaks = speaks
        self._keep_alive_s = request.keep_alive_s
        self._tally = usage.Tally(request)
        self._body = b""

    def receive(self) -> None:
        self._body = self._answer.read_object(self._grace_s)

    def complete(self, used: Usage) -> Usage:
        """The usage with what this exchange knows by itself."""
        return used

    @property
    def usage(self) -> Usage:
        return self.complete(self._tally.usage)

    def conclude(self) -> Usage:
        return self.complete(self._tally.conclude())

    def _none(self, said: bytes) -> UpstreamError:
        """The failure of an attempt whose answer is none, with the reason that it gives."""
        return error_of(502, said, self._secret, otherwise=UNREADABLE)

    def close(self) -> None:
        self._answer.close()
