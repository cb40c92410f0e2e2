"""JSON as upstreams write it, which may be worse than is allowed: halves of characters, NaN, numbers without bounds."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_string = msgspec.json.Decoder(str)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_json(data: bytes) -> Any:
    """The value; None for what is no JSON."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def string_in(data: bytes) -> str:
    """A text, which may have halves of characters; "" for what is none."""
    try:
        return _string.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = read_json(data)
    return value if isinstance(value, str) else ""


def members_of(data: bytes) -> dict[str, bytes]:
    """The members of an object at its top level, as they are written. Raises `ValueError` for what is no object."""
    try:
        return {name: bytes(raw) for name, raw in _members.decode(data).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = read_json(data)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return {name: json.dumps(inner).encode() for name, inner in value.items()}


def without_surrogates(data: bytes) -> bytes:
    """JSON of the same length in which no escape is half of a character, for msgspec takes no such text."""
    return _SURROGATE.sub(rb"\\u00", data)


class WholeText:
    """Texts of a stream whose characters may come in two halves, which JSON escapes as two surrogates."""

    def __init__(self) -> None:
        self._halves: dict[object, str] = {}

    def add(self, place: object, text: str) -> str:
        """What of `text`, the next piece of what is told at `place`, can be said now: its last half waits for the next piece,
        and one that nothing completes becomes a mark."""
        if self._halves:
            text = self._halves.pop(place, "") + text
        if text.isascii():
            return text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._halves[place] = text[-1]
            text = text[:-1]
        return whole(text)


def whole(text: str) -> str:
    """The text with a mark for each half of a character, so that it can be written again."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def all_whole(value: Any) -> Any:
    """The value with a mark for each half of a character in it."""
    match value:
        case str():
            return whole(value)
        case dict():
            return {whole(name): all_whole(inner) for name, inner in value.items()}
        case list():
            return [all_whole(inner) for inner in value]
    return value
