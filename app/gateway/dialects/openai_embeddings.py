"""`POST /v1/embeddings`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from app.directory import TEXT, Model
from app.gateway.dialects.base import Asked
from app.gateway.dialects.openai import STEERING, JsonRequest, OpenAIDialect, added, texts_of, tokens_of
from app.gateway.errors import bad_request
from app.metering.pricing import TokenBound

QUOTE = ord('"')


class EmbeddingsRequest(JsonRequest):
    """`POST /v1/embeddings`."""

    input: Any = None
    encoding_format: Literal["float", "base64"] | None = None
    type: Literal["query", "passage"] | None = None
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
    """OpenAI's embeddings, and the `type` of their texts, for which a model may have an instruction."""

    name: ClassVar[str] = "openai_embeddings"
    end: ClassVar[bytes] = b""
    request: ClassVar[type[JsonRequest]] = EmbeddingsRequest
    own: ClassVar[tuple[str, ...]] = (*STEERING, "type")

    def suited(self, asked: Asked, model: Model) -> Asked:
        checked: Any = asked.checked
        if checked.type is None:
            return asked
        instruction = model.query_instruction if checked.type == "query" else model.passage_instruction
        if not instruction:
            return asked
        texts = checked.inputs()
        if not isinstance(texts[0], str):
            raise bad_request(f"'type' needs texts with '{model.name}', which puts an instruction beside them.", "type")
        before, is_around, after = instruction.partition(TEXT)
        if not is_around and not before[-1].isspace():
            before += " "
        checked.input = [f"{before}{text}{after}" for text in texts]
        is_one = memoryview(asked.members["input"])[0] == QUOTE
        asked.members["input"] = msgspec.json.encode(checked.input[0] if is_one else checked.input)
        return asked._replace(size=asked.size + len(texts) * len(msgspec.json.encode(before + after)))


DIALECT = OpenAIEmbeddings()
