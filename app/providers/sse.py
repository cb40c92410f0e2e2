"""Server-sent events, read as they come.

Upstreams write them in many ways: with any line ends, with a byte order mark, with comments in between, or with one
line end where the standard wants an empty line. As all dialects here carry JSON, a data line that is whole by itself is an
event by itself. Whatever the pieces are, the events are the same, and each byte costs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from app.providers.base import UpstreamError
from app.providers.lenient_json import without_surrogates

Event = tuple[bytes | None, bytes]  # its name, None for none, and its data

COMMENT = b":"  # the name of a comment, where they are asked for
KEEP_ALIVE = b": keep-alive\n\n"  # a comment, which clients read over
MAX_EVENT_BYTES = 32 << 20
MAX_STRAY_BYTES = 65_536
BOM = b"\xef\xbb\xbf"

_LINE_COST = 64  # what a line takes in memory besides its bytes
_json = msgspec.json.Decoder(msgspec.Raw)


class EventReader:
    """The events of a body that comes in pieces, `read` giving the next of them, b"" at the end and None for a silence.

    With `comments`, each comment and each silence between two events is an event whose name is `COMMENT`. An iterator over
    it raises `UpstreamError` for an event that is too large, and what `read` raises.
    """

    def __init__(
        self, read: Callable[[], bytes | None], max_event_bytes: int = MAX_EVENT_BYTES, *, comments: bool = False
    ) -> None:
        self._read = read
        self._comments = comments
        self._max = max_event_bytes
        self._head = b""  # the first bytes, while they may be a byte order mark
        self._begun = False
        self._is_clean = True  # nothing is left of an earlier piece
        self._line: list[bytes] = []  # the pieces of a line whose end has not come
        self._name: bytes | None = None
        self._data: list[bytes] = []  # the data lines of an event whose end has not come
        self._alone: bool | None = None  # whether the first of them stands alone, None before it was looked at
        self._size = 0  # of both
        self._after_cr = False
        self._stray: list[bytes] = []
        self._stray_size = 0

    @property
    def stray(self) -> bytes:
        """The beginning of what was no event: what an upstream says that does not stream after all."""
        return b"\n".join(self._stray)

    def __iter__(self) -> Iterator[Event]:
        read = self._read
        while (piece := read()) != b"":
            if piece is None:
                if self._comments and self._begun and self._is_clean:
                    yield COMMENT, b""
            elif (events := self._usual(piece)) is not None:
                self._begun = True
                for data in events:
                    yield None, data
            else:
                yield from self._feed(piece)
                self._is_clean = not (self._head or self._line or self._data or self._name or self._after_cr)
        yield from self._end()

    def _usual(self, piece: bytes) -> list[bytes] | None:
        """The data of a piece that is nothing but whole events of one data line each; None for any other piece."""
        if not (self._is_clean and piece.startswith(b"data: {") and piece.endswith(b"\n\n")) or b"\r" in piece:
            return None
        events = piece[6:-2].split(b"\n\ndata: ")
        return events if piece.count(b"\n") == 2 * len(events) and b"" not in events else None

    def _feed(self, piece: bytes) -> list[Event]:
        """The events that end with this piece, or that are whole in it."""
        if not self._begun:
            piece = self._head + piece
            if len(piece) < len(BOM) and BOM.startswith(piece):
                self._head = piece
                return []
            self._begun, self._head = True, b""
            piece = piece.removeprefix(BOM)
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        events: list[Event] = []
        lines = piece.splitlines(keepends=True)  # of bytes, that is at \n, \r and \r\n
        if self._line and lines:
            self._line.append(lines[0])
            self._grow(len(lines[0]))
            if not lines[0].endswith((b"\n", b"\r")):
                return events
            lines[0] = b"".join(self._line)
            self._size -= len(lines[0]) + _LINE_COST * len(self._line)
            self._line = []
        for line in lines:
            if line.endswith(b"\n"):
                self._take(line[:-2] if line.endswith(b"\r\n") else line[:-1], events)
            elif line.endswith(b"\r"):
                self._take(line[:-1], events)
            else:
                self._line.append(line)
                self._grow(len(line))
        self._after_cr = piece.endswith(b"\r")
        if not self._line and self._is_whole():
            self._dispatch(events)  # rather than wait for an empty line that may never come
        return events

    def _end(self) -> list[Event]:
        """What the end of the body makes an event: what is whole."""
        events: list[Event] = []
        rest = self._head + b"".join(self._line)
        self._line, self._size = [], 0
        if rest:
            self._take(rest, events)
        if stands_alone(b"\n".join(self._data)):
            self._dispatch(events)
        return events

    def _is_whole(self) -> bool:
        """Whether the data so far are an event, though no empty line has come."""
        if len(self._data) != 1:
            return False
        if self._alone is None:
            self._alone = stands_alone(self._data[0])
        return self._alone

    def _take(self, line: bytes, events: list[Event]) -> None:
        if not line:
            self._dispatch(events)
            return
        field, _, value = line.partition(b":")
        if not field:
            if self._comments:
                events.append((COMMENT, b""))
            return
        if field not in (b"data", b"event", b"id", b"retry"):
            if self._stray_size < MAX_STRAY_BYTES:
                self._stray.append(line[:MAX_STRAY_BYTES])
                self._stray_size += len(line) + _LINE_COST
            return
        if self._is_whole():
            self._dispatch(events)
        value = value.removeprefix(b" ")
        if field == b"data":
            self._grow(len(value))
            self._data.append(value)
        elif field == b"event":
            self._name = value

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            if data:
                events.append((self._name, data))
            self._data, self._size, self._alone = [], 0, None
        self._name = None

    def _grow(self, size: int) -> None:
        self._size += size + _LINE_COST
        if self._size > self._max:
            raise UpstreamError("The provider sent an event that is too large.")


def stands_alone(data: bytes) -> bool:
    """Whether a data line is an event without an empty line behind it: an object that is whole, or no object at all."""
    data = data.strip()
    if not data.startswith(b"{"):
        return bool(data)
    if not data.endswith(b"}"):
        return False
    try:
        _json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        try:
            _json.decode(without_surrogates(data))
        except (msgspec.DecodeError, RecursionError):
            return False
    return True
