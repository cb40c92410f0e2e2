"""Documents in order: a model reads the question again with each of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.call import Call
from app.gateway.dialects.openai import MESSAGE_TOKENS
from app.gateway.endpoints import RERANK
from app.gateway.errors import ApiError
from tests.gateway.dialects.calls import MODEL, asked

RANKING = msgspec.structs.replace(MODEL, capabilities=("rerank",))
DOCUMENTS = st.lists(
    st.text(max_size=20) | st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=2),
    min_size=1,
    max_size=6,
)


def ranking(query: str, documents: list[Any], **fields: Any) -> Call:
    return asked({"model": "small", "query": query, "documents": documents, **fields}, RANKING, RERANK)


def bytes_of(part: Any) -> int:
    if isinstance(part, str):
        return len(part.encode())
    return sum(len((name + text).encode()) for name, text in part.items())


@given(st.text(min_size=1, max_size=50), DOCUMENTS)
def test_the_bound_holds_the_question_once_for_each_document(query: str, documents: list[Any]) -> None:
    call = ranking(query, documents)
    bound = call.bound
    assert bound.input >= sum(bytes_of(query) + bytes_of(document) for document in documents)
    assert (bound.prompts, bound.produces_output) == (len(documents), False)
    assert call.request.parsed.input == [part for document in documents for part in (query, document)]


@given(st.text("ab", min_size=1, max_size=50), st.integers(1, 50))
def test_a_document_more_is_its_own_bytes_and_the_question_again(query: str, many: int) -> None:
    less, more = (ranking(query, ["one"] * count).bound.input for count in (many, many + 1))
    assert more - less == len(', "one"') + len(query) + MESSAGE_TOKENS


@pytest.mark.parametrize(
    ("query", "documents", "param"),
    [
        ("", ["a"], "query"), ("a", [], "documents"), ("a", ["b", 5], "documents[1]"), ("a", [["b"]], "documents[0]"),
        ("a", [None], "documents[0]"), ("a", ["b"] * 10_001, "documents"),
    ],
)  # fmt: skip
def test_a_document_is_a_text_or_an_object(query: str, documents: list[Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        ranking(query, documents)
    assert (refused.value.status, refused.value.param) == (400, param)
