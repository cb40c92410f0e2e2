"""The version of an object that programs may change: a digest of what can be set of it, as GET tells it.

What is told beside that (what is spent, when it was last used) changes by itself and is no part of the version. So an
answer is cut to the members that the body of the route's PUT or PATCH takes, nested objects too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.inspect import ListType, StructType, Type, UnionType, type_info

Shape = Mapping[str, Any] | list[Any] | None  # members of an object, the one kind of item of a list, or a value


class Version:
    """How the answer of one route becomes a version. `beside` names members that count though no body takes them: they
    tell of something that can be set under another name, or is never shown."""

    def __init__(self, body: type[msgspec.Struct], beside: tuple[str, ...] = ()) -> None:
        self._shape: dict[str, Any] = {**(_shape(type_info(body)) or {}), **dict.fromkeys(beside)}  # type: ignore[dict-item]

    def of(self, answer: Any) -> str:
        """The version of what `answer`, a Struct, tells."""
        settable = _cut(msgspec.to_builtins(answer), self._shape)
        return hashlib.sha256(msgspec.json.encode(settable, order="sorted")).hexdigest()[:32]


def _shape(kind: Type) -> Shape:
    match kind:
        case StructType(fields=fields):
            return {field.encode_name: _shape(field.type) for field in fields}
        case ListType(item_type=item):
            return [_shape(item)]
        case UnionType(types=types):
            return next((found for found in map(_shape, types) if found is not None), None)
    return None


def _cut(value: Any, shape: Shape) -> Any:
    if isinstance(shape, Mapping) and isinstance(value, dict):
        return {name: _cut(value[name], inner) for name, inner in shape.items() if name in value}
    if isinstance(shape, list) and isinstance(value, list):
        return [_cut(item, shape[0]) for item in value]
    return value
