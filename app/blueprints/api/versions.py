"""The version of an object that programs can change: a digest of its settable members, as GET returns them.

Other members (what is spent, when it was last used) change by themselves and are not part of the version. So the digest
covers only the members that the body of the route's PUT or PATCH takes, nested objects included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.inspect import ListType, StructType, Type, UnionType, type_info

Shape = Mapping[str, Any] | list[Any] | None  # the members of an object, the item of a list, or a value


class Version:
    """How the answer of one route becomes a version. `beside` names members that count although no body takes them:
    they reflect something that can be set under another name, or that is never shown."""

    def __init__(self, body: type[msgspec.Struct], beside: tuple[str, ...] = ()) -> None:
        self._shape: dict[str, Any] = {**(_shape(type_info(body)) or {}), **dict.fromkeys(beside)}  # type: ignore[dict-item]

    def of(self, answer: Any) -> str:
        """Returns the version of `answer`, a Struct."""
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
