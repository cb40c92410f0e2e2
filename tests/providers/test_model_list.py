"""A list of models is read in the shapes that upstreams write, and what is no list is a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.errors import UpstreamError
from app.providers.model_list import LONGEST_ID, MOST, UNREADABLE, ListedModel, read


def listed(said: Any) -> list[tuple[str, int | None, int | None]]:
    return [(one.id, one.context_window, one.max_output_tokens) for one in read(json.dumps(said).encode())]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"object": "list", "data": [{"id": "b"}, {"id": "a"}, {"id": "b"}]}, [("a", None, None), ("b", None, None)]),
        ([{"id": "bare"}], [("bare", None, None)]),
        ({"models": [{"name": "local:7b"}]}, [("local:7b", None, None)]),
        (["a", " b "], [("a", None, None), ("b", None, None)]),
        ({"data": [{"id": "v", "max_model_len": 32768}]}, [("v", 32768, None)]),
        ({"data": [{"id": "g", "context_window": 8192, "max_completion_tokens": 4096}]}, [("g", 8192, 4096)]),
        (
            {"data": [{"id": "o", "context_length": 9, "top_provider": {"max_completion_tokens": 5}}]},
            [("o", 9, 5)],
        ),
        ({"data": [{"id": "x", "context_length": "9", "max_output_tokens": 0}]}, [("x", None, None)]),
        ({"data": []}, []),
        ({"data": [{"id": "good"}, {"id": 7}, {}, None, {"id": "x" * (LONGEST_ID + 1)}, {"id": "a\nb"}]},
         [("good", None, None)]),
    ],
)  # fmt: skip
def test_a_list_is_read_in_whatever_shape_it_comes(said: Any, expected: list[Any]) -> None:
    assert listed(said) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><html><body>Sign in</body></html>",
        b'{"data": "none"}',
        b'{"data": {"id": "a"}}',
        b'{"object": "list"}',
        b'{"data": [{"title": "a"}]}',
        b'{"data": [{"id": "a"}',
        b"7",
        b"[" * 100_000,
        b"\xff\xfe{}",
    ],
)
def test_what_is_no_list_is_a_failure(body: bytes) -> None:
    with pytest.raises(UpstreamError) as failed:
        read(body)
    assert failed.value.message == UNREADABLE


def test_more_than_one_can_look_through_is_a_failure() -> None:
    assert len(listed([str(number) for number in range(MOST)])) == MOST
    with pytest.raises(UpstreamError, match="more than 5000"):
        listed([str(number) for number in range(MOST + 1)])


ANYTHING: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "models", "id", "name", "context_length", "top_provider", "x"]), inner
        )
    ),
    max_leaves=20,
)


@given(said=ANYTHING)
def test_any_json_is_a_list_or_a_failure(said: Any) -> None:
    try:
        found = read(json.dumps(said).encode())
    except UpstreamError:
        return
    assert [one.id for one in found] == sorted({one.id for one in found})
    assert all(isinstance(one, ListedModel) and 1 <= len(one.id) <= LONGEST_ID for one in found)
