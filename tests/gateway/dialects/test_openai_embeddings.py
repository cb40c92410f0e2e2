"""What is embedded is bounded by its bytes, or by its tokens where they come as such, and bears a model's instruction."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.call import Call
from app.gateway.endpoints import EMBEDDINGS
from app.gateway.errors import ApiError
from tests.gateway.dialects.calls import MODEL, asked, charged, names, sent_up, values


def embedding(given: Any, **fields: Any) -> Call:
    return asked({"model": "small", "input": given, **fields}, endpoint=EMBEDDINGS)


@given(
    st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=5) | st.text(min_size=1, max_size=50),
    st.dictionaries(names.filter(lambda name: name not in ("user", "input", "dimensions")), values, max_size=3),
)
def test_what_is_embedded_is_bounded_by_its_bytes(items: Any, others: dict[str, Any]) -> None:
    call = embedding(items, **others)
    assert call.bound.input >= charged(sent_up(call, "max_tokens"))


def test_of_a_list_of_tokens_each_is_one() -> None:
    without = embedding([1]).bound.input
    assert embedding([123456] * 500).bound.input == without + 499
    assert embedding([[123456] * 500, [7]]).bound.input == without + 500
    assert embedding([5], prompt="x" * 50).bound.input >= without + 50


@pytest.mark.parametrize("instruction", ["passage: ", "passage:"])
def test_an_instruction_that_names_no_place_stands_before_the_text(instruction: str) -> None:
    model = msgspec.structs.replace(MODEL, passage_instruction=instruction)
    call = asked({"model": "small", "input": ["a"], "type": "passage"}, model, EMBEDDINGS)
    assert json.loads(call.request.members["input"]) == ["passage: a"]


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4) | st.text(min_size=1, max_size=20))
def test_an_instruction_stands_beside_each_text_and_counts(given: Any) -> None:
    model = msgspec.structs.replace(MODEL, query_instruction="Find: {text} \u00b7")
    plain = asked({"model": "small", "input": given}, endpoint=EMBEDDINGS)
    call = asked({"model": "small", "input": given, "type": "query"}, model, EMBEDDINGS)
    before = "Find: ", " \u00b7"
    expected = given.join(before) if isinstance(given, str) else [text.join(before) for text in given]
    assert json.loads(call.request.members["input"]) == expected
    assert "type" not in call.request.members
    sent = json.loads(sent_up(call, "max_tokens"))
    assert call.bound.input - plain.bound.input >= charged(json.dumps(sent).encode()) - charged(
        sent_up(plain, "max_tokens")
    )


def test_a_type_for_which_a_model_has_no_instruction_changes_nothing() -> None:
    model = msgspec.structs.replace(MODEL, query_instruction="Find: {text}")
    call = asked({"model": "small", "input": "a", "type": "passage"}, model, EMBEDDINGS)
    assert json.loads(call.request.members["input"]) == "a"


def test_an_instruction_has_no_place_beside_tokens() -> None:
    model = msgspec.structs.replace(MODEL, query_instruction="Find: {text}")
    with pytest.raises(ApiError) as refused:
        asked({"model": "small", "input": [1, 2], "type": "query"}, model, EMBEDDINGS)
    assert (refused.value.status, refused.value.param) == (400, "type")
