"""Vectors that another dialect gave are told as OpenAI's clients read them."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.dialects import dialect
from app.providers.base import UpstreamError, UpstreamRequest
from app.providers.openai_embeddings import VectorsExchange, texts_of

floats = st.floats(-1, 1, width=32)


def request(**body: Any) -> UpstreamRequest:
    read = dialect("openai_embeddings").read(json.dumps({"model": "ours"} | body).encode())
    return UpstreamRequest(
        capability="embeddings", dialect="openai_embeddings", model="ours", members=read.members, parsed=read.checked
    )


@given(st.lists(st.lists(floats, min_size=1, max_size=4), min_size=1, max_size=3), st.booleans())
def test_vectors_are_told_in_either_format(vectors: list[list[float]], is_packed: bool) -> None:
    exchange = VectorsExchange(request(input="a b c", encoding_format="base64" if is_packed else "float"))
    exchange.take(vectors)
    body = json.loads(exchange.body())
    told = [one["embedding"] for one in body["data"]]
    if is_packed:
        told = [list(struct.unpack(f"<{len(base64.b64decode(text)) // 4}f", base64.b64decode(text))) for text in told]
    assert told == vectors and [one["index"] for one in body["data"]] == list(range(len(vectors)))
    assert (body["model"], body["object"], body["usage"]["prompt_tokens"]) == ("ours", "list", 3)
    assert exchange.usage.estimated, "nobody told them"


@pytest.mark.parametrize(("told", "used"), [(2, (2, False)), (0, (3, True))])
def test_what_the_upstream_read_is_charged_if_it_told_it(told: int, used: tuple[int, bool]) -> None:
    exchange = VectorsExchange(request(input="a b c"))
    exchange.told(told)
    concluded = exchange.conclude()
    assert (concluded.prompt_tokens, concluded.estimated) == used


def test_tokens_are_nobody_else_s() -> None:
    assert texts_of(request(input=["a", "b"])) == ["a", "b"]
    with pytest.raises(UpstreamError) as refused:
        texts_of(request(input=[1, 2]))
    assert refused.value.refused and refused.value.param == "input"


def test_vectors_of_another_size_than_was_asked_for_are_refused() -> None:
    exchange = VectorsExchange(request(input="a", dimensions=2))
    exchange.take([[1.0, 2.0]])
    with pytest.raises(UpstreamError, match="have 1 dimensions") as refused:
        exchange.take([[1.0]])
    assert refused.value.refused and refused.value.param == "dimensions"
