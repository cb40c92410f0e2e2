"""A value is replaced in the text of an object, and every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.envelope import open_envelope
from app.runtime.jsonbody import RawObject, places_of

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(['"model":"x"', "\\", "}", "é" * 40_000])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
names = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(['"model":"x"', "\\", "}"])
blanks = st.text(" \t\r\n", max_size=2)


@given(
    before=st.dictionaries(names, values, max_size=3),
    after=st.dictionaries(names, values, max_size=3),
    blank=blanks,
    ascii=st.booleans(),
    swapped=st.booleans(),
)
def test_only_the_values_differ(
    before: dict[str, Any], after: dict[str, Any], blank: str, ascii: bool, swapped: bool
) -> None:
    given = {"model": "theirs é", "limit": 7}
    named = dict(reversed(given.items())) if swapped else given
    body = {**{name: value for name, value in before.items() if name not in given}, **named}
    body |= {name: value for name, value in after.items() if name not in body}

    def spelled(replaced: dict[str, bytes]) -> bytes:
        members = [
            b"%b%b%b:%b%b"
            % (
                blank.encode(),
                json.dumps(name, ensure_ascii=ascii).encode(),
                blank.encode(),
                blank.encode(),
                replaced.get(name) or json.dumps(value, ensure_ascii=ascii).encode(),
            )
            for name, value in body.items()
        ]
        return b" {" + (blank.encode() + b",").join(members) + blank.encode() + b"}\n"

    text = spelled({})
    raw = places_of(text, open_envelope(text).members, "model", "limit")
    assert raw is not None
    values = {"model": b'"ours"', "limit": b"123456"}
    assert b"".join(raw.put(values)) == spelled(values)
    assert b"".join(raw.put({"limit": b"1"})) == spelled({"limit": b"1"})


@pytest.mark.parametrize("text", [b"{}", b'{"model":"x"}', b'{"a":1,"limit":2}'])
def test_a_member_that_is_missing_has_no_place(text: bytes) -> None:
    assert places_of(text, open_envelope(text).members, "model", "limit") is None


def test_a_large_body_is_not_copied() -> None:
    text = b'{"model":"x","messages":"%b","limit":1}' % (b"m" * 200_000)
    raw = places_of(text, open_envelope(text).members, "model", "limit")
    assert isinstance(raw, RawObject)
    pieces = raw.put({"model": b'"y"', "limit": b"2"})
    assert b"".join(pieces) == text.replace(b'"x"', b'"y"').replace(b'"limit":1', b'"limit":2')
    assert any(isinstance(piece, memoryview) for piece in pieces)
