"""Vectors as clients of OpenAI's embeddings read them, for upstreams that give them in another way."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence

import msgspec

from app.providers.base import Exchange, Pieces, UpstreamError, UpstreamRequest, Usage
from app.providers.usage import Tally, Told


class VectorsExchange(Exchange):
    """An exchange whose answer is vectors, one for each text, once it takes them."""

    speaks = "openai_embeddings"

    def __init__(self, request: UpstreamRequest) -> None:
        self._request = request
        self._tally = Tally(request)
        self.vectors: list[list[float]] = []

    def take(self, vectors: list[list[float]]) -> None:
        """Raises `UpstreamError` where they are of another size than was asked for."""
        size = self._request.parsed.dimensions
        if size is not None and any(len(vector) != size for vector in vectors):
            said = f"This model's vectors have {len(vectors[0])} dimensions."
            raise UpstreamError(said, refused=True, status=400, param="dimensions")
        self.vectors = vectors

    def told(self, prompt_tokens: int) -> None:
        """The upstream tells what it read; 0 tells nothing."""
        self._tally.take(Told(prompt=prompt_tokens))

    @property
    def usage(self) -> Usage:
        return self._tally.usage

    def conclude(self) -> Usage:
        return self._tally.conclude()

    def body(self) -> bytes:
        used = self.conclude().prompt_tokens
        is_packed = self._request.parsed.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if is_packed else vector}
            for index, vector in enumerate(self.vectors)
        ]
        told = {"prompt_tokens": used, "total_tokens": used}
        return msgspec.json.encode({"object": "list", "data": data, "model": self._request.model, "usage": told})

    def events(self) -> Pieces:
        raise UpstreamError("Embeddings are not streamed.", refused=True, status=400)

    def close(self) -> None:
        """There is nothing to give back."""


def texts_of(request: UpstreamRequest) -> list[str]:
    """The texts to embed. Raises `UpstreamError` for tokens, which only those understand whose tokens they are."""
    items: list[str] = request.parsed.inputs()
    if not all(isinstance(item, str) for item in items):
        raise UpstreamError("This model takes texts and no tokens.", refused=True, status=400, param="input")
    return items


def _packed(vector: Sequence[float]) -> str:
    """Floats of four bytes each, the lowest first, in base64."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
