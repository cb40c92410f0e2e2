"""A body taken apart at its top level: whatever is sent, its members are those that a JSON parser sees, each of them once."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.gateway.envelope import COUNTED_FROM, LARGE, LONGEST_NAME, MOST_MEMBERS, open_envelope
from app.gateway.errors import ApiError
from app.runtime.jsonbody import object_of
from tests.growth import assert_linear, peak_bytes

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
    assert json.loads(b"".join(object_of(opened.members))) == sent


@given(
    some.text(max_size=5), VALUES, VALUES, some.sampled_from(["", LONG]), some.sampled_from(["", LONG]),
    some.sampled_from([",", ", "]), some.sampled_from([":", ": "]),
)  # fmt: skip
def test_a_member_that_comes_twice_is_refused(
    name: str, first: object, second: object, before: str, after: str, comma: str, colon: str
) -> None:
    members = [("other", before), (name, first), ("between", after), (name, second)]
    body = "{" + comma.join(f"{json.dumps(key)}{colon}{json.dumps(value)}" for key, value in members) + "}"
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


def _repeated(unit: str, size: int) -> str:
    return ",".join([unit] * (size // (len(unit) + 1)))


def _distinct(size: int) -> str:
    return ",".join(f'"{number:x}":0' for number in range(size // 9))


# Bodies of about `size` bytes that make a reader do more than it needs to.
HOSTILE: dict[str, Callable[[int], str]] = {
    "one long name": lambda size: '{"' + "a" * size + '":1}',
    "one long name of backslashes": lambda size: '{"' + "\\\\" * (size // 2) + '":1}',
    "a long name twice": lambda size: '{"' + "a" * (size // 2) + '":1,"' + "a" * (size // 2) + '":1}',
    "a name that never ends": lambda size: '{"' + '\\"' * (size // 2),
    "many members": lambda size: "{" + _distinct(size) + "}",
    "one member many times": lambda size: "{" + _repeated('"a":1', size) + "}",
    "many inner members": lambda size: '{"metadata":{' + _distinct(size) + "}}",
    "many parts": lambda size: '{"messages":[{"content":[' + _repeated('{"type":"text","text":""}', size) + "]}]}",
    "many empty lists": lambda size: '{"messages":[' + _repeated("[]", size) + "]}",
    "many objects": lambda size: '{"tools":[' + _repeated('{"a":1}', size) + "]}",
    "many numbers": lambda size: '{"input":[' + _repeated("1", size) + "]}",
    "many long numbers": lambda size: '{"input":[' + _repeated("1.23456789012345678901e300", size) + "]}",
    "many texts": lambda size: '{"input":[' + _repeated('"ab"', size) + "]}",
    "deep lists": lambda size: '{"a":' + "[" * (size // 2) + "]" * (size // 2) + "}",
    "deep objects": lambda size: '{"a":' * (size // 6) + "1" + "}" * (size // 6),
    "a huge integer": lambda size: '{"a":' + "1" * size + "}",
    "a huge fraction": lambda size: '{"a":0.' + "1" * size + "}",
    "a huge exponent": lambda size: '{"a":1e' + "1" * size + "}",
    "escapes": lambda size: '{"a":"' + "\\u0041" * (size // 6) + '"}',
    "commas and brackets in a text": lambda size: '{"a":"' + ",[{" * (size // 3) + '"}',
    "quotes in a text that comes twice": lambda size: (
        '{"a":"' + "x" * LARGE + '","a":"' + '\\\\\\"' * (size // 4) + '"}'
    ),
    "blanks": lambda size: '{"a"' + " " * size + ":1" + " " * size + "}",
}


def _opened(body: bytes) -> None:
    with suppress(ApiError):
        open_envelope(body)


@pytest.mark.parametrize("size", [1 << 18, COUNTED_FROM + (1 << 16)])
@pytest.mark.parametrize("shape", HOSTILE)
def test_opening_a_hostile_body_takes_linear_time(shape: str, size: int) -> None:
    assert_linear(_opened, lambda size: HOSTILE[shape](size).encode(), size)


@pytest.mark.parametrize("shape", HOSTILE)
def test_opening_a_hostile_body_takes_bounded_memory(shape: str) -> None:
    for size in (1 << 19, 8 << 20):
        body = HOSTILE[shape](size).encode()
        assert peak_bytes(partial(_opened, body)) < 6 * len(body) + (64 << 20)


@pytest.mark.parametrize(
    "shape", ["many inner members", "many empty lists", "many numbers", "many texts", "deep lists"]
)
def test_a_body_of_too_many_parts_is_refused_before_they_are_made(shape: str) -> None:
    body = HOSTILE[shape](16 << 20).encode()

    def refused() -> None:
        with pytest.raises(ApiError, match="too many parts") as found:
            open_envelope(body)
        assert found.value.status == 400

    assert peak_bytes(refused) < 3 * len(body)


@pytest.mark.parametrize("inside", [",", "[{", '\\"', "\\\\", '\\\\\\"', "é,"])
def test_a_long_text_is_one_part_whatever_is_in_it(inside: str) -> None:
    text = inside * (COUNTED_FROM // len(inside))
    assert open_envelope(f'{{"model":"m","input":"{text}","end":[1]}}'.encode()).values == {
        "model": "m",
        "input": json.loads(f'"{text}"'),
        "end": [1],
    }


def test_as_many_tokens_as_upstreams_take_are_accepted() -> None:
    body = b'{"input":[' + b",".join([b"[%s]" % b",".join([b"100257"] * 2000)] * 190) + b"]}"
    assert len(body) > COUNTED_FROM
    assert len(open_envelope(body).values["input"]) == 190


def test_names_and_members_have_limits() -> None:
    assert open_envelope(b'{"%s":1}' % (b"n" * LONGEST_NAME)).values == {"n" * LONGEST_NAME: 1}
    escaped = b"\\ud83d\\ude00" * LONGEST_NAME
    assert open_envelope(b'{"%s":1}' % escaped).values == {"😀" * LONGEST_NAME: 1}
    with pytest.raises(ApiError, match="name has 257 characters") as found:
        open_envelope(b'{"model":"m","%s":1}' % (b"n" * 257))
    assert (found.value.status, found.value.param) == (400, "n" * 100)
    many = {f"m{number}": number for number in range(MOST_MEMBERS)}
    assert open_envelope(json.dumps(many).encode()).values == many
    with pytest.raises(ApiError, match="1001 members"):
        open_envelope(json.dumps({**many, "one": "more"}).encode())
