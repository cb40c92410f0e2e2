"""The model's name in answers: the portal's own, at the top level and nowhere else.

An answer stays as it came, byte for byte, but for this one member. The chunks of a stream spell what stands around it
the same way all along, so the place is looked for once and found again by comparing bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from app.providers.lenient_json import members_of
from app.runtime.jsonbody import object_of

_MEMBER = re.compile(rb'"model"[ \t\r\n]*+:[ \t\r\n]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\w.+-]++)', re.DOTALL)
_REMEMBERED = 4096  # bytes

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ModelName:
    """Puts one name into the JSON objects of one answer."""

    def __init__(self, name: str) -> None:
        self._named, self._member = _member_of(name)
        # What an object began or ended with, their member included, and what stands there instead.
        self._start: tuple[bytes, bytes] | None = None
        self._end: tuple[bytes, bytes] | None = None

    def put(self, data: bytes) -> bytes:
        """The object `data` with our name. Raises `ValueError` for what is no JSON object."""
        if self._start is not None and data.startswith(self._start[0]):
            return self._start[1] + data[len(self._start[0]) :]
        if self._end is not None and data.endswith(self._end[0]):
            return data[: -len(self._end[0])] + self._end[1]
        place = _place_in(data)
        if place is None:
            return self._elsewhere(data)
        start, end = place
        if end <= _REMEMBERED:
            self._start = (data[:end], data[:start] + self._member)
        if len(data) - start <= _REMEMBERED:
            self._end = (data[start:], self._member + data[end:])
        return data[:start] + self._member + data[end:]

    def put_once(self, data: bytes) -> bytes:
        """The same for an object that no other like it follows."""
        place = _place_in(data)
        return self._elsewhere(data) if place is None else data[: place[0]] + self._member + data[place[1] :]

    def put_within(self, data: bytes, member: str) -> bytes:
        """The object `data` with our name in the object that is its `member`. Raises `ValueError` where there is none."""
        inner = members_of(data).get(member, b"")
        if not inner.startswith(b"{"):
            raise ValueError(f"no object {member}")
        named = self.put_once(inner)
        start = data.find(inner)
        if start >= 0:
            return data[:start] + named + data[start + len(inner) :]
        return b"".join(object_of(members_of(data) | {member: named}))

    def _elsewhere(self, data: bytes) -> bytes:
        """The object with our name where bytes do not tell the place of the member, or there is none."""
        if b'"model"' in data:
            return b"".join(object_of(members_of(data) | {"model": self._named}))
        return self._added(data)

    def _added(self, data: bytes) -> bytes:
        at = data.index(b"{") + 1
        empty = data[at : at + 16].lstrip().startswith(b"}")
        return data[:at] + self._member + (b"" if empty else b",") + data[at:]


@lru_cache(1024)
def _member_of(name: str) -> tuple[bytes, bytes]:
    """The name as JSON, and the member that it is the value of."""
    named = msgspec.json.encode(name)
    return named, b'"model":' + named


def _place_in(data: bytes) -> tuple[int, int] | None:
    """Where the member stands at the top level; None if that can't be seen."""
    found = _MEMBER.search(data)
    return found.span() if found is not None and _is_top(data, *found.span()) else None


def _is_top(data: bytes, start: int, end: int) -> bool:
    """Whether what looks like a member named model is one of the outermost object."""
    opens = data.find(b"{")
    if data.find(b"{", opens + 1, start) < 0 and data.find(b"[", 0, start) < 0 and data[start - 1] in b"{, ":
        return True  # nothing has been opened before it
    # Text up to a member is an object if its bracket is closed behind it, and only at the top level.
    try:
        return list(_members.decode(data[:end] + b"}"))[-1] == "model"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
