"""JSON of upstreams is read and written again whatever is wrong with it, and what is no JSON is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.providers.lenient_json import members_of, read_json, whole_characters, without_surrogates
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


def test_halves_of_characters_become_marks_and_whole_ones_stay() -> None:
    told = {"half": "\ud83d", "whole": "\U0001f600", "text": "\\ud83d", "after": "\\ud83d\ude00"}
    clean = json.loads(whole_characters(json.dumps(told).encode()))
    assert clean == {"half": "?", "whole": "\U0001f600", "text": "\\ud83d", "after": "\\ud83d?"}
