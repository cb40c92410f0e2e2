"""JSON texts taken whole: how much one holds before it is decoded, and an object written from members that are JSON
already.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Parts(NamedTuple):
    """How much a JSON text holds: objects and lists, members of objects, and values of all kinds."""

    nested: int
    members: int
    values: int


def count_parts(text: bytes, most_quotes: int) -> Parts | None:
    """What a decoder would make of a JSON text at the most, counted in C and in linear time; None where the text has more
    quotes than `most_quotes`."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # the quotes that are left begin and end strings
    if text.count(b'"') > most_quotes:
        return None
    outside = b"".join(text.split(b'"')[::2])
    nested = outside.count(b"[") + outside.count(b"{")
    return Parts(nested, outside.count(b":"), nested + outside.count(b","))


def object_of(members: dict[str, bytes]) -> list[bytes]:
    """The members as one JSON object again, in pieces, for large ones are better not copied."""
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
    return msgspec.json.encode(name)[1:-1]
