"""JSON texts: the size of one before it is decoded, and an object written from members that are already JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec


class Parts(NamedTuple):
    """Counts of a JSON text: objects and lists, members of objects, and values of all kinds."""

    nested: int
    members: int
    values: int


def count_parts(text: bytes, most_quotes: int) -> Parts | None:
    """Upper bounds of what a decoder would create from a JSON text, counted in C in linear time; None if the text has more
    than `most_quotes` quotes."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # the remaining quotes begin and end strings
    if text.count(b'"') > most_quotes:
        return None
    outside = b"".join(text.split(b'"')[::2])
    nested = outside.count(b"[") + outside.count(b"{")
    return Parts(nested, outside.count(b":"), nested + outside.count(b","))


_KEY = re.compile(rb'[ \t\n\r]*+"(?:[^"\\]|\\.)*+"[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
_COMMA = re.compile(rb"[ \t\n\r]*+,")
_LARGE = 65_536  # bytes that are not copied


class RawObject(NamedTuple):
    """The text of an object, and where the values of some of its members stand in it."""

    text: bytes
    places: Mapping[str, tuple[int, int]]

    def put(self, values: Mapping[str, bytes]) -> list[bytes]:
        """The text with other values for these members, in pieces; every other byte is as it was."""
        pieces: list[bytes] = []
        at, view = 0, memoryview(self.text)
        for name in sorted(values, key=self.places.__getitem__):
            start, end = self.places[name]
            pieces += (_piece(view[at:start]), values[name])
            at = end
        return [*pieces, _piece(view[at:])]


def _piece(view: memoryview) -> bytes:
    return view if len(view) >= _LARGE else bytes(view)  # type: ignore[return-value]


def places_of(text: bytes, members: Mapping[str, bytes], *names: str) -> RawObject | None:
    """Where the values of these members stand in an object whose members are all in `members`, in order and as they are
    written there. None if that can't be told, or one of them is missing."""
    found: dict[str, tuple[int, int]] = {}
    at = text.index(b"{") + 1
    for name, value in members.items():
        key = _KEY.match(text, at)
        if key is None:
            return None
        start = key.end()
        at = start + len(value)
        if name in names:
            found[name] = start, at
            if len(found) == len(names):
                return RawObject(text, found)
        comma = _COMMA.match(text, at)
        if comma is None:
            return None
        at = comma.end()
    return None


def object_of(members: Mapping[str, bytes]) -> list[bytes]:
    """Return the members as one JSON object, in pieces, so that large members are not copied."""
    pieces: list[bytes] = []
    before = b"{"
    for name, value in members.items():
        pieces += (b'%b"%b":' % (before, _quoted(name)), value)
        before = b","
    pieces.append(b"}" if members else b"{}")
    return pieces


def _quoted(name: str) -> bytes:
    if name.isidentifier() and name.isascii():
        return name.encode()
    try:
        return msgspec.json.encode(name)[1:-1]
    except UnicodeEncodeError:  # half of a character
        return json.dumps(name)[1:-1].encode()
