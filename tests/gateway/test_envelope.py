"""A body taken apart at its top level: whatever is sent, its members are those that a JSON parser sees, each of them once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.gateway.envelope import LARGE, open_envelope, seal_envelope
from app.gateway.errors import ApiError

VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LONG = "x" * LARGE


@given(some.dictionaries(some.text(max_size=8), VALUES, max_size=6), some.sampled_from([None, 0, 3]), some.booleans())
def test_what_is_opened_and_sealed_again_says_the_same(sent: dict[str, object], indent: int | None, long: bool) -> None:
    sent = {**sent, "long": LONG} if long else sent
    body = json.dumps(sent, indent=indent, ensure_ascii=indent is None).encode()
    opened = open_envelope(body)
    assert opened.values == sent
    assert {name: json.loads(bytes(value)) for name, value in opened.members.items()} == sent
    assert json.loads(b"".join(seal_envelope(opened.members))) == sent


@given(some.text(max_size=5), VALUES, VALUES, some.sampled_from(["", LONG]), some.sampled_from(["", LONG]))
def test_a_member_that_comes_twice_is_refused(
    name: str, first: object, second: object, before: str, after: str
) -> None:
    members = [("other", before), (name, first), ("between", after), (name, second)]
    body = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in members) + "}"
    with pytest.raises(ApiError, match="twice"):
        open_envelope(body.encode())


@pytest.mark.parametrize("first", ["{}", '"x"', f'"{LONG}"', f'["{LONG}","}}"]', f'"{LONG}z"', f'"{LONG[:-1]}"'])
@pytest.mark.parametrize("second", ["1", f'"{LONG}"', f'["{LONG}"]', f'"{LONG}z"'])
def test_a_large_member_that_comes_twice_is_refused(first: str, second: str) -> None:
    with pytest.raises(ApiError, match="twice"):
        open_envelope(f'{{"model":"m","messages":{first},"user":"u","messages":{second},"n":1}}'.encode())


@given(VALUES, VALUES, some.text(max_size=40))
def test_a_large_member_that_comes_twice_is_refused_whatever_is_in_it(first: object, second: object, text: str) -> None:
    """The walk, which takes the first for as long as the second, may come to itself anywhere within."""
    one, two = json.dumps([LONG, first, text, {"n": text}]), json.dumps([LONG, second])
    with pytest.raises(ApiError):
        open_envelope(f'{{"messages":{one},"n":1,"messages":{two}}}'.encode())
