"""`POST /v1/embeddings`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from app.directory import Model
from app.gateway.dialects.openai import JsonRequest, OpenAIDialect, added, texts_of, tokens_of
from app.metering.pricing import TokenBound


class EmbeddingsRequest(JsonRequest):
    """`POST /v1/embeddings`."""

    input: Any = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None

    def inputs(self) -> list[Any]:
        """What is to be embedded, one item a vector: texts, or lists of tokens. After `check`."""
        items: list[Any] = self.input
        return items

    def check(self) -> None:
        self.input = texts_of(self.input, "input")

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        items = self.inputs()
        tokens = tokens_of(items, size, members["input"]) + added(model)
        return TokenBound(tokens, None, produces_output=False, priced_apart=priced_apart, prompts=len(items))


class OpenAIEmbeddings(OpenAIDialect):
    """OpenAI's embeddings."""

    name: ClassVar[str] = "openai_embeddings"
    end: ClassVar[bytes] = b""
    request: ClassVar[type[JsonRequest]] = EmbeddingsRequest


DIALECT = OpenAIEmbeddings()
