"""A stream's events are the same however the network cuts it."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from app.providers.wire import Answer, split_events

LINES = st.lists(st.text('abc:{}" é', min_size=1, max_size=8).map(lambda text: f"data: {text}"), min_size=1, max_size=3)
ENDS = st.sampled_from(["\n", "\r\n"])


class Cut:
    """An answer whose body comes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def events(pieces: list[bytes]) -> list[bytes]:
    return list(split_events(cast("Answer", Cut([piece for piece in pieces if piece]))))


@given(st.lists(st.tuples(LINES, ENDS), max_size=6), st.data())
def test_events_are_the_same_however_they_are_cut(told: list[tuple[list[str], str]], data: Any) -> None:
    body = "".join(end.join(lines) + end * 2 for lines, end in told).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert events(pieces) == [end.join(lines).encode() for lines, end in told]


def test_events_that_come_together_or_with_other_line_ends_are_told_apart() -> None:
    assert events([b"data: 1\n\n", b"data: 2\r\n\r\ndata: 3\n\n", b"data: 4\n\ndata: 5\n\n", b"data: 6"]) == [
        b"data: 1", b"data: 2", b"data: 3", b"data: 4", b"data: 5", b"data: 6",
    ]  # fmt: skip
