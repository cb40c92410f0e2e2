"""A stream's events are the same however the network cuts it and however its upstream ends lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.providers.base import UpstreamError
from app.providers.sse import BOM, COMMENT, Event, EventReader
from tests.growth import assert_linear

ENDS = ("\n", "\r\n", "\r")
# What upstreams are known to send, one way each.
RECORDED = {
    "as OpenAI does": b'data: {"id":"a","choices":[{"delta":{"content":"\xc3\xa9"}}]}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n',
    "one line end": b'data: {"a":1}\ndata: {"b":"}"}\ndata: [DONE]\n',
    "a mark and CRLF": BOM + b'data:{"a":1}\r\n\r\ndata: [DONE]\r\n\r\n',
    "CR alone": b'data: {"a":1}\r\rdata: {"b":2}\r\r',
    "names and ids": b'id: 1\nevent: delta\nretry: 5\ndata: {"a":1}\n\nevent: stop\ndata: {}\n\n',
    "names and one line end": b'event: delta\ndata: {"a":1}\nevent: stop\ndata: {"b":2}\n',
    "pings": b': open\n\ndata: ping\n\ndata: null\ndata: []\n\ndata: {"a":1}\n\n:\n\n',
    "over several lines": b'data: {\ndata:  "a": 1\ndata: }\n\ndata: {"b":2}\n\n',
    "half characters": b'data: {"a":"\\ud83d"}\n\ndata: {"a":"\\ude00"}\ndata: {"a":"\xf0\x9f"}\n\n',
    "no end": b'data: {"a":1}\n\ndata: {"b":2}',
}


def events(*pieces: bytes, **options: Any) -> list[Event]:
    rest = [piece for piece in pieces if piece]
    return list(EventReader(lambda: rest.pop(0) if rest else b"", **options))


def data_of(*pieces: bytes) -> list[bytes]:
    return [data for _, data in events(*pieces)]


def cut(body: bytes, places: list[int]) -> list[bytes]:
    at = sorted(place % (len(body) + 1) for place in places)
    return [body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True)]


@given(st.sampled_from(sorted(RECORDED)), st.lists(st.integers(0, 200), max_size=12))
def test_a_recorded_stream_has_the_same_events_wherever_it_is_cut(name: str, places: list[int]) -> None:
    body = RECORDED[name]
    assert events(*cut(body, places)) == events(body)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recorded_stream_has_the_same_events_byte_by_byte(name: str) -> None:
    body = RECORDED[name]
    assert events(*[body[at : at + 1] for at in range(len(body))]) == events(body)


objects = st.dictionaries(
    st.sampled_from("abc"), st.sampled_from(["", "}", "é", "\ud83d", "\\"]) | st.integers(0, 9), max_size=2
).map(json.dumps)
noise = st.sampled_from([": heartbeat", "id: 7", "retry: 10", "", "whatever"])


@given(
    st.lists(st.tuples(objects, st.lists(noise, max_size=2), st.booleans()), min_size=1, max_size=6),
    st.sampled_from(ENDS),
    st.booleans(),
    st.lists(st.integers(0, 500), max_size=8),
)
@example([("{}", [], False), ("{}", [], False)], "\r", True, [1, 2, 3])
def test_no_event_is_lost_with_any_line_end_and_any_noise(
    sent: list[tuple[str, list[str], bool]], end: str, marked: bool, places: list[int]
) -> None:
    lines = [line for text, around, apart in sent for line in [*around, f"data: {text}", *([""] if apart else [])]]
    body = (BOM if marked else b"") + "".join(line + end for line in lines).encode()
    assert data_of(*cut(body, places)) == [text.encode() for text, _, _ in sent]


def test_an_event_bears_its_name() -> None:
    assert events(RECORDED["names and ids"]) == [(b"delta", b'{"a":1}'), (b"stop", b"{}")]
    assert events(RECORDED["names and one line end"]) == [(b"delta", b'{"a":1}'), (b"stop", b'{"b":2}')]


def test_data_over_several_lines_are_one_event() -> None:
    assert data_of(RECORDED["over several lines"]) == [b'{\n "a": 1\n}', b'{"b":2}']


def test_half_an_event_at_the_end_is_none() -> None:
    assert data_of(b'data: {"a":1}\n\ndata: {"b":') == [b'{"a":1}']


def test_an_event_without_an_empty_line_is_told_at_once() -> None:
    pieces = [b'data: {"a":1}\n']
    reader = iter(EventReader(lambda: pieces.pop(0)))  # which fails if it is asked once more
    assert next(reader) == (None, b'{"a":1}')


def test_what_is_no_event_is_kept_for_its_reason() -> None:
    reader = EventReader(iter([b'{\n  "error":', b' "no"\n}', b""]).__next__)
    assert list(reader) == []
    assert json.loads(reader.stray) == {"error": "no"}


@pytest.mark.parametrize("body", [b"data: " + b"a" * 2000, b"data: {\n" * 400, b"data:\n" * 400, b"x" * 2000])
def test_an_event_that_is_too_large_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="too large"):
        events(*cut(body, list(range(0, len(body), 100))), max_event_bytes=1000)


HARD = {
    "one event": lambda size: b'data: {"a":"' + b"x" * size + b'"}\n\n',
    "lines of one event": lambda size: b"data: {\n" * (size // 64) + b"\n",
    "a broken line and many ids": lambda size: b"data: {" + b"x" * (size // 2) + b"}\n" + b"id: 1\n" * (size // 12),
    "comments": lambda size: b":\n" * (size // 2),
    "empty lines": lambda size: b"\n" * size,
    "carriage returns": lambda size: b"\r" * size,
    "stray lines": lambda size: b"x\n" * (size // 2),
}


@pytest.mark.parametrize("name", sorted(HARD))
def test_reading_takes_linear_time_whatever_a_stream_looks_like(name: str) -> None:
    def pieces(size: int) -> list[bytes]:
        body = HARD[name](size)
        return [body[at : at + 1000] for at in range(0, len(body), 1000)]

    assert_linear(lambda given: events(*given), pieces, 100_000)


def test_comments_and_silences_are_told_to_who_asks_and_never_within_an_event() -> None:
    pieces: list[bytes | None] = [
        None, b": a comment\n\n", b'data: {"a":1}\n\n', None, b'data: {"a', None, b'":2}\n\n', b":\n\n", None, b"",
    ]  # fmt: skip
    told = list(EventReader(iter(pieces).__next__, comments=True))
    comment = (COMMENT, b"")
    assert told == [comment, (None, b'{"a":1}'), comment, (None, b'{"a":2}'), comment, comment]
    assert list(EventReader(iter(pieces).__next__)) == [(None, b'{"a":1}'), (None, b'{"a":2}')]
