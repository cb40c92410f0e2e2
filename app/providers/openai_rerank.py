"""Documents in order, as OpenAI-shaped servers give them in the shape of Cohere, whose usage stands in other places."""

from __future__ import annotations

import msgspec

from app.providers.base import Pieces, UpstreamError, UpstreamRequest
from app.providers.http import Answer
from app.providers.lenient_json import members_of
from app.providers.model_name import ModelName
from app.providers.openai_events import NULL
from app.providers.openai_exchange import TalliedExchange

_OF_NUMBERS = b"-0123456789"


class _Result(msgspec.Struct, gc=False):
    index: int
    relevance_score: msgspec.Raw

    @property
    def is_one(self) -> bool:
        return memoryview(self.relevance_score)[0] in _OF_NUMBERS


class _Meta(msgspec.Struct):
    tokens: msgspec.Raw = msgspec.Raw(NULL)
    billed_units: msgspec.Raw = msgspec.Raw(NULL)


_results = msgspec.json.Decoder(list[_Result])
_meta = msgspec.json.Decoder(_Meta)


class RerankExchange(TalliedExchange):
    """One question and its documents, sent to an upstream whose head was good."""

    def __init__(
        self, answer: Answer, request: UpstreamRequest, speaks: str, secret: str | None, grace_s: float
    ) -> None:
        super().__init__(answer, request, speaks, secret, grace_s)
        self._name = ModelName(request.model)

    def body(self) -> bytes:
        body = self._body
        try:
            members = members_of(body)
            results = _results.decode(members.get("results", b"[]"))
        except (ValueError, msgspec.DecodeError, UnicodeDecodeError):
            raise self._none(body) from None
        if not results or not all(result.is_one for result in results):
            raise self._none(body)
        self._tell(members)
        self.conclude()
        return self._name.put_once(body) if "model" in members else body

    def events(self) -> Pieces:
        raise UpstreamError("Documents in order are not streamed.", refused=True, status=400)

    def _tell(self, members: dict[str, bytes]) -> None:
        """Read the usage: as OpenAI tells it, or as Cohere does."""
        if self._tally.tell(members.get("usage", NULL)).says_something:
            return
        try:
            meta = _meta.decode(members.get("meta", b"{}"))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if not self._tally.tell(bytes(meta.tokens)).says_something:
            self._tally.tell(bytes(meta.billed_units))
