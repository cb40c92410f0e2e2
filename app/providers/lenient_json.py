"""JSON as upstreams write it, which may be worse than is allowed: halves of characters, NaN, numbers without bounds."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
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


def whole_characters(data: bytes) -> bytes:
    """The same JSON with a question mark for each half of a character, so that its texts can be written again."""
    if _SURROGATE.search(data) is None:
        return data
    return json.dumps(read_json(data), ensure_ascii=False).encode("utf-8", "replace")
