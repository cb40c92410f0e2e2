"""JSON texts: the size of one before it is decoded, and an object written from members that are already JSON."""

from __future__ import annotations

import json
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


def object_of(members: Mapping[str, bytes]) -> list[bytes]:
    """Return the members as one JSON object, in pieces, so that large members are not copied."""
    pieces = [b"{"]
    for name, value in members.items():
        pieces += (b'"', _quoted(name), b'":', value, b",")
    if members:
        pieces.pop()
    pieces.append(b"}")
    return pieces


def _quoted(name: str) -> bytes:
    if name.isidentifier() and name.isascii():
        return name.encode()
    try:
        return msgspec.json.encode(name)[1:-1]
    except UnicodeEncodeError:  # half of a character
        return json.dumps(name)[1:-1].encode()
