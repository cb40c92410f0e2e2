"""`POST /v1/embeddings`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from app.directory import Model
from app.gateway.dialects.openai import MESSAGE_TOKENS, JsonRequest, OpenAIDialect, added
from app.gateway.errors import bad_request
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
        self.input = _embeddable(self.input)

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        items = self.inputs()
        if isinstance(items[0], list):  # of a list of tokens each is one, however many digits it has
            tokens = size - len(members["input"]) + sum(map(len, items))
        else:
            tokens = size + MESSAGE_TOKENS * len(items)
        return TokenBound(tokens + added(model), None, produces_output=False, priced_apart=priced_apart)


def _embeddable(given: Any) -> Any:
    if isinstance(given, str) or isinstance(given, list) and given and all(type(token) is int for token in given):
        given = [given]
    if not isinstance(given, list) or not given:
        raise bad_request("'input' must be a text, a list of texts, or a list of tokens, and not empty.", "input")
    if len(given) > 2048:
        raise bad_request("'input' may have at most 2048 items.", "input")
    for index, item in enumerate(given):
        texts = isinstance(item, str) and item
        tokens = isinstance(item, list) and item and all(type(token) is int and token >= 0 for token in item)
        if not texts and not tokens or type(item) is not type(given[0]):
            raise bad_request(
                f"'input[{index}]' must be a text or a list of tokens, as the first is.", f"input[{index}]"
            )
    return given


class OpenAIEmbeddings(OpenAIDialect):
    """OpenAI's embeddings."""

    name: ClassVar[str] = "openai_embeddings"
    end: ClassVar[bytes] = b""
    request: ClassVar[type[JsonRequest]] = EmbeddingsRequest


DIALECT = OpenAIEmbeddings()
