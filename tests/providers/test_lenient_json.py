"""JSON of upstreams is read and written again whatever is wrong with it, and what is no JSON is told."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.lenient_json import WholeText, all_whole, members_of, read_json, string_in, whole, without_surrogates
from app.runtime.jsonbody import object_of


@pytest.mark.parametrize(
    "text", ['{"a": 1.50, "b": [NaN]}', '{"a": 1e400}', '{"a": "\\ud83d"}', '{"a\\"b": {"c": 1}}', "{}"]
)
def test_an_object_taken_apart_and_put_together_says_the_same(text: str) -> None:
    def loads(text: bytes | str) -> Any:
        return json.loads(text, parse_constant=lambda _: None)

    assert loads(b"".join(object_of(members_of(text.encode())))) == loads(text)


@pytest.mark.parametrize("data", [b"", b"[]", b"text", b'{"a":', b'{"a":' * 3000, b"\xff"])
def test_what_is_no_object_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        members_of(data)
    assert read_json(data) in (None, [])


def test_halves_of_characters_are_taken_out_at_the_same_length() -> None:
    data = b'{"a": "\\uD83d\\uDe00 \\u00e9"}'
    assert without_surrogates(data) == b'{"a": "\\u003d\\u0000 \\u00e9"}'
    assert len(without_surrogates(data)) == len(data)


def test_a_member_named_by_half_a_character_is_written_again() -> None:
    assert json.loads(b"".join(object_of(members_of(b'{"a\\ud83d":1}')))) == {"a\ud83d": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\ud83d", "a\ufffd"),
        ("\ude00b", "\ufffdb"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\\ud83d", "\\ud83d"),
        ("é", "é"),
    ],
)
def test_halves_of_characters_become_marks_or_whole_ones(text: str, expected: str) -> None:
    assert whole(text) == expected


@given(st.text(), st.data())
def test_a_text_that_comes_in_any_pieces_is_the_same(text: str, data: st.DataObject) -> None:
    halves = "".join(map(chr, struct.unpack(f"<{len(text.encode('utf-16-le')) // 2}H", text.encode("utf-16-le"))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(halves)), max_size=5)))
    heard = WholeText()
    pieces = [heard.add("here", halves[a:b]) for a, b in zip([0, *cuts], [*cuts, len(halves)], strict=True)]
    assert "".join(pieces) == text
    for piece in pieces:
        piece.encode()


def test_halves_at_different_places_do_not_meet() -> None:
    heard = WholeText()
    assert heard.add("one", "a\ud83d") == "a"
    assert heard.add("other", "\ude00") == "\ufffd"
    assert heard.add("one", "\ude00b") == "\U0001f600b"


@pytest.mark.parametrize(
    ("data", "text"),
    [(b'"a\\u00e9"', "aé"), (b'"\\ud83d"', "\ud83d"), (b"5", ""), (b"nonsense", ""), (b'"\xff"', "\ufffd")],
)
def test_a_text_is_read_with_its_halves_of_characters(data: bytes, text: str) -> None:
    assert string_in(data) == text


def test_halves_of_characters_become_marks_at_every_depth() -> None:
    assert all_whole({"\ud83d": ["a\ude00", {"b": 1.5}, None]}) == {"\ufffd": ["a\ufffd", {"b": 1.5}, None]}
