"""The model's name in answers: the portal's own, at the top level and nowhere else.

An answer stays as it came, byte for byte, but for this one member. The chunks of a stream spell what stands around it
the same way all along, so the place is looked for once and found again by comparing bytes.
"""

from __future__ import annotations

import re

import msgspec

from app.providers.lenient_json import members_of, object_of

_MEMBER = re.compile(rb'"model"[ \t\r\n]*+:[ \t\r\n]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\w.+-]++)', re.DOTALL)
_REMEMBERED = 4096  # bytes

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ModelName:
    """Puts one name into the JSON objects of one answer."""

    def __init__(self, name: str) -> None:
        self._named = msgspec.json.encode(name)
        self._member = b'"model":' + self._named
        # What an object began or ended with, their member included, and what stands there instead.
        self._start: tuple[bytes, bytes] | None = None
        self._end: tuple[bytes, bytes] | None = None

    def put(self, data: bytes) -> bytes:
        """The object `data` with our name. Raises `ValueError` for what is no JSON object."""
        if self._start is not None and data.startswith(self._start[0]):
            return self._start[1] + data[len(self._start[0]) :]
        if self._end is not None and data.endswith(self._end[0]):
            return data[: -len(self._end[0])] + self._end[1]
        return self.put_once(data, remember=True)

    def put_once(self, data: bytes, *, remember: bool = False) -> bytes:
        """The same for an object that no other like it follows."""
        found = _MEMBER.search(data)
        if found is None:
            return self._anew(data) if b'"model"' in data else self._added(data)
        start, end = found.span()
        if not _is_top(data, start, end):
            return self._anew(data)
        if not remember:
            return b"".join((data[:start], self._member, data[end:]))
        if end <= _REMEMBERED:
            self._start = (data[:end], data[:start] + self._member)
        if len(data) - start <= _REMEMBERED:
            self._end = (data[start:], self._member + data[end:])
        return data.replace(found[0], self._member, 1)

    def _added(self, data: bytes) -> bytes:
        at = data.index(b"{") + 1
        empty = data[at : at + 16].lstrip().startswith(b"}")
        return data[:at] + self._member + (b"" if empty else b",") + data[at:]

    def _anew(self, data: bytes) -> bytes:
        """The object written again, for a member whose place bytes do not tell."""
        return object_of(members_of(data) | {"model": self._named})


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
