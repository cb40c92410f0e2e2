"""Streams of typed events: each is passed on whole, in however many pieces it comes, and none is a stream's end but its own."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.base import UpstreamError
from app.providers.openai_events import SILENCE, TypedEvent, media_type_of, typed_events
from tests.providers.canned import Canned

values = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8)
events = st.lists(
    st.tuples(
        st.none() | st.sampled_from(["transcript.text.delta", "x"]),
        st.dictionaries(st.sampled_from(["type", "delta", "usage", "b"]), values, max_size=3)
        .map(lambda members: {"type": "t"} | members)
        .filter(lambda members: members["type"] != "error"),
    ),
    max_size=5,
)


def written(name: str | None, said: Any, ensure_ascii: bool = True) -> bytes:
    named = b"" if name is None else f"event: {name}\n".encode()
    return named + b"data: " + json.dumps(said, ensure_ascii=ensure_ascii).encode() + b"\n\n"


def read(body: bytes, cuts: tuple[int, ...] = ()) -> tuple[list[TypedEvent], UpstreamError]:
    """The events before a stream's end, and how it failed, as it does that nobody ends."""
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(body)), len(body)]
    pieces = [body[start:end] for start, end in pairwise(places) if start < end]
    found: list[TypedEvent] = []
    with pytest.raises(UpstreamError) as failed:
        found.extend(typed_events(Canned(kind="text/event-stream", pieces=pieces).answer, "sk-secret", 15.0))
    return found, failed.value


@given(events, st.booleans(), st.lists(st.integers(1, 300), max_size=6).map(tuple))
def test_every_event_with_a_type_is_passed_on_however_its_bytes_are_cut(said: Any, ascii: bool, cuts: Any) -> None:
    body = b"".join(written(name, members, ascii) for name, members in said)
    found, failed = read(body, cuts)
    typed = [(name, members) for name, members in said if isinstance(members["type"], str)]
    assert [event.kind for event in found] == [members["type"] for _, members in typed]
    assert [event.sent for event in found] == [written(name, members, ascii) for name, members in typed]
    for event, (_, members) in zip(found, typed, strict=True):
        assert {name: json.loads(raw) for name, raw in event.members.items()} == members
    assert failed.status == 502


@pytest.mark.parametrize(
    "failure",
    [
        b'event: error\ndata: {"message":"No room for sk-secret."}\n\n',
        b'data: {"type":"error","error":{"message":"No room for sk-secret."}}\n\n',
        b'data: {"type":"x","error":{"message":"No room for sk-secret."}}\n\n',
    ],
)
def test_an_event_that_tells_a_failure_ends_the_stream_and_shows_no_secret(failure: bytes) -> None:
    good = written(None, {"type": "t"})
    found, failed = read(good + failure + good)
    assert [event.kind for event in found] == ["t"]
    assert "No room for" in failed.message and "sk-secret" not in failed.message


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n", b'data: {"type":"t"'])
def test_a_stream_that_ends_before_whoever_reads_it_was_told_all_is_cut(end: bytes) -> None:
    found, failed = read(written(None, {"type": "t"}) + end)
    assert len(found) == 1
    assert failed.message == "The provider's stream ended before it was complete."


def test_an_event_of_several_lines_is_passed_on_in_one() -> None:
    found, _ = read(b'data: {"type":\ndata: "t"}\n\n')
    assert [event.sent for event in found] == [b'data: {"type": "t"}\n\n']


def test_what_was_no_event_tells_why_the_stream_failed() -> None:
    found, failed = read(b'data: {"detail":"The model is loading."}\n\n')
    assert found == [] and "The model is loading." in failed.message


@pytest.mark.parametrize(
    ("header", "kind"),
    [("Text/Event-Stream; charset=utf-8", "text/event-stream"), (" audio/mpeg ", "audio/mpeg"), ("", ""), (";x", "")],
)
def test_a_media_type_is_read_without_its_parameters(header: str, kind: str) -> None:
    assert media_type_of(Canned(kind=header).answer) == kind


def test_a_silence_after_the_first_event_gives_a_sign_of_life() -> None:
    pieces = [
        None,
        b": a comment\n\n",
        written(None, {"type": "t"}),
        None,
        written(None, {"type": "t"}),
        b": again\n\n",
    ]
    found: list[TypedEvent] = []
    with pytest.raises(UpstreamError):
        found.extend(typed_events(Canned(kind="text/event-stream", pieces=pieces).answer, None, 15.0))
    assert [event.kind for event in found] == ["t", SILENCE, "t", SILENCE]
    assert found[1].sent == found[3].sent == b": keep-alive\n\n"
