"""A noun's fields, declared once: a Struct whose `Meta` carries title, help and bounds of each.

What else must know them derives from the Struct: the domain's check (`fill`), what the management API takes and tells
(`with_fields` of its contract), the fields of a form (`app.web.forms.with_numbers`), and through the
noun's `summary` its history. The column and a migration are written beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec.inspect import IntType, Metadata, StructType, Type, UnionType, type_info

from app.domain.errors import Invalid


class Number(NamedTuple):
    """A whole number that may be absent."""

    name: str
    title: str
    help: str
    least: int
    most: int


@cache
def numbers_of(kind: type[msgspec.Struct]) -> tuple[Number, ...]:
    """The numbers that a Struct declares, in its order. Raises `TypeError` for one without title or bounds."""
    described = type_info(kind)
    assert isinstance(described, StructType)
    return tuple(_number(field.name, field.type) for field in described.fields)


def _number(name: str, found: Type) -> Number:
    told: dict[str, Any] = {}
    if isinstance(found, Metadata):
        told, found = found.extra_json_schema or {}, found.type
    match found:
        case UnionType(types=(IntType(ge=int(least), le=int(most)), _)) if "title" in told:
            return Number(name, told["title"], told.get("description", ""), least, most)
    raise TypeError(f"{name} must be a number or None, with a title and both bounds")


def told(kind: type[msgspec.Struct], item: object) -> dict[str, int | None]:
    """The values that `item` has for the fields of `kind`."""
    return {name: getattr(item, name) for name in kind.__struct_fields__}


def words(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What the history calls the fields of `kind`."""
    return {number.name: number.title[:1].lower() + number.title[1:] for number in numbers_of(kind)}


def fill(kind: type[msgspec.Struct], item: object, values: Mapping[str, int | msgspec.UnsetType | None]) -> None:
    """Sets those fields of `item` that are given; one that is `UNSET` stays. Raises `Invalid` naming the first that is
    out of its bounds."""
    numbers = {number.name: number for number in numbers_of(kind)}
    for name, value in values.items():
        number = numbers.get(name)
        if number is None:
            raise TypeError(f"there is no field {name}")
        if value is msgspec.UNSET:
            continue
        if value is not None and not number.least <= value <= number.most:
            raise Invalid(f"Give a number from {number.least} to {number.most}, or nothing.", name)
        setattr(item, name, value)
