"""`POST /v1/rerank`, in Cohere's shape: documents in the order in which they answer a question."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from app.directory import Model
from app.gateway.dialects.openai import MESSAGE_TOKENS, JsonRequest, OpenAIDialect, added
from app.gateway.errors import bad_request
from app.metering.pricing import TokenBound

MOST_DOCUMENTS = 10_000

Count = Annotated[int, Meta(ge=1, le=2**31)]


class RerankRequest(JsonRequest):
    """`POST /v1/rerank`. A document is a text, or an object with texts."""

    query: Annotated[str, Meta(min_length=1)] = ""
    documents: Annotated[list[Any], Meta(min_length=1, max_length=MOST_DOCUMENTS)] = []
    top_n: Count | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Count | None = None
    rank_fields: list[str] | None = None

    required: ClassVar[tuple[str, ...]] = ("model", "query", "documents")

    @property
    def input(self) -> list[Any]:
        """What a model reads: the question again with each document."""
        return [part for document in self.documents for part in (self.query, document)]

    def check(self) -> None:
        for index, document in enumerate(self.documents):
            if not isinstance(document, str | dict):
                place = f"documents[{index}]"
                raise bad_request(f"'{place}' must be a text or an object.", place)

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        pairs = len(self.documents)
        asked = (len(self.query.encode("utf-8", "replace")) + MESSAGE_TOKENS) * pairs
        return TokenBound(
            size + added(model) + asked, None, produces_output=False, priced_apart=priced_apart, prompts=pairs
        )


class Rerank(OpenAIDialect):
    """Cohere's reranking."""

    name: ClassVar[str] = "rerank"
    end: ClassVar[bytes] = b""
    request: ClassVar[type[JsonRequest]] = RerankRequest


DIALECT = Rerank()
