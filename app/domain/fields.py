"""A noun's fields, declared once: a Struct whose `Meta` holds each field's title, help and bounds.

Everything else derives from the Struct: the domain's validation (`fill`), the noun's `summary` and history (`told`,
`words`), the bodies of the management API (`with_fields` of its contract), and the inputs of forms (`with_inputs` of
`app.web.forms`). Only the column and a migration are written separately.

A field is described like a setting of an adapter (`app.providers.settings`). `Meta(extra=...)` can add:

- `labels`: the label of each choice; default: the choice itself.
- `spread`: show a choice as radio buttons.
- `lines`: the height of a long text's input.
- `attributes`: more HTML attributes of the input.
- `needed`: a form's message if the field is empty.
- `refusal`: the domain's message for an invalid value. The API's body then leaves the validation to the domain.
- `role`: `secret` for a value that is never shown. A form leaves its input empty; an empty input keeps the value.
- `read`: a function that converts the input or raises `Invalid`; it replaces all other validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec.inspect import (
    BoolType,
    DictType,
    IntType,
    ListType,
    LiteralType,
    Metadata,
    StrType,
    StructType,
    Type,
    UnionType,
    type_info,
)
from msgspec.inspect import Field as Declared

from app.domain.errors import Invalid
from app.providers import settings

Fields = type[msgspec.Struct]

UNBOUNDED = 2**63 - 1
UNKNOWN = "Object contains unknown field `"  # the start of msgspec's message about one


class Field(settings.Field, frozen=True, kw_only=True):
    """One field of a noun. `least` and `most` bound a number, a text's length in characters or a list's length."""

    several: bool = False  # a list of choices or of words
    is_whole: bool = False
    can_be_none: bool = False
    least: int = 0
    most: int = UNBOUNDED
    longest: int = UNBOUNDED  # characters of each word
    labels: Mapping[str, str] = {}
    spread: bool = False
    lines: int = 1
    attributes: Mapping[str, str] = {}
    needed: str = "This field is required."
    refusal: str | None = None
    read: Callable[[Any], Any] | None = None

    @classmethod
    def of(cls, setting: settings.Field) -> Field:
        """An adapter's setting as a field; the adapter validates it."""
        return cls(**msgspec.structs.asdict(setting), attributes={"spellcheck": "false"})

    @property
    def is_number(self) -> bool:
        """Whether it is a number: pages show numbers side by side."""
        return self.type == "number"

    @property
    def usual(self) -> Any:
        """Its default."""
        return list(self.default or ()) if self.several else self.default


@cache
def fields_of(kind: Fields) -> tuple[Field, ...]:
    """The fields that a Struct declares, in order. Raises `TypeError` for a field without a title or a number without
    bounds."""
    described = type_info(kind)
    assert isinstance(described, StructType)
    read = settings.fields_of(cast("type[settings.Settings]", kind))  # it accepts any Struct
    return tuple(_field(kind, one, read) for one in described.fields)


def _field(kind: Fields, found: Declared, read: Iterable[settings.Field]) -> Field:
    given = msgspec.structs.asdict(next(one for one in read if one.name == found.name))
    given["choices"] = _choices_of(get_type_hints(kind, include_extras=True)[found.name])
    if callable(found.default_factory):
        given["default"] = found.default_factory()
    meta = found.type
    if not isinstance(meta, Metadata) or "title" not in (meta.extra_json_schema or {}):
        raise TypeError(f"{kind.__name__}.{found.name} must have a title")
    return Field(**given | _bounds(meta.type) | (meta.extra or {}))


def _bounds(found: Type) -> dict[str, Any]:
    match found:
        case UnionType(types=(one, _)):
            return {"can_be_none": True, **_bounds(one)}
        case IntType(ge=int(least), le=int(most)):
            return {"is_whole": True, "least": least, "most": most}
        case StrType(max_length=most):
            return _known(most=most)
        case ListType(item_type=LiteralType(), min_length=least):
            return {"type": "choice", "several": True, **_known(least=least)}
        case ListType(item_type=StrType(max_length=longest), max_length=most):
            return {"several": True, **_known(most=most, longest=longest)}
        case BoolType() | LiteralType() | DictType():
            return {}
    raise TypeError(f"{found} cannot be a field: a number needs both bounds")


def _choices_of(hint: Any) -> tuple[str, ...]:
    """The values of a Literal at any depth, in the order of the source: `type_info` sorts them."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((choices for one in get_args(hint) if (choices := _choices_of(one))), ())


def _known(**bounds: int | None) -> dict[str, int]:
    return {name: bound for name, bound in bounds.items() if bound is not None}


def told(kind: Fields, item: object) -> dict[str, Any]:
    """The values of an item's fields by name, without secrets."""
    values = {field.name: (field, getattr(item, field.name)) for field in fields_of(kind) if field.role is None}
    return {name: list(value or ()) if field.several else value for name, (field, value) in values.items()}


def words(kind: Fields) -> dict[str, str]:
    """The fields' names in the history, by field name."""
    return {field.name: field.title[:1].lower() + field.title[1:] for field in fields_of(kind)}


def numbers(kind: Fields) -> tuple[str, ...]:
    """The names of the number fields."""
    return tuple(field.name for field in fields_of(kind) if field.is_number)


def usual(kind: Fields) -> dict[str, Any]:
    """The defaults of the fields, by name."""
    return {field.name: field.usual for field in fields_of(kind) if not field.required}


def fill(kind: Fields, item: object, values: Mapping[str, Any]) -> None:
    """Set the given fields of `item`; `UNSET` keeps the current value, and an unchanged value is not validated again.

    Raises `Invalid` naming the first invalid field; then nothing is set.
    """
    known = {field.name: field for field in fields_of(kind)}
    if unknown := values.keys() - known.keys():
        raise TypeError(f"there is no field {', '.join(sorted(unknown))}")
    judged = {}
    for name, field in known.items():
        value = values.get(name, msgspec.UNSET)
        if value is None and not field.can_be_none:
            value = field.usual
        if value is not msgspec.UNSET and value != getattr(item, name, msgspec.UNSET):
            judged[name] = usable(field, value)
    for name, value in judged.items():
        setattr(item, name, value)


def usable(field: Field, value: Any) -> Any:
    """The value to store. Raises `Invalid`. Forms judge each of their inputs by it too, so that one answer names all that is
    wrong."""
    if field.can_be_none and isinstance(value, str):
        value = value.strip() or None
    if value is None:
        return None
    if field.read is not None:
        return field.read(value)
    if field.type == "choice":
        return _chosen(field, value)
    if field.several:
        return _listed(field, value)
    if field.is_number and not field.least <= value <= field.most:
        raise _refused(field, f"Enter a number from {field.least} to {field.most}, or leave this empty.")
    if field.type == "text" and len(value) > field.most:
        raise _refused(field, f"Use at most {field.most} characters.")
    return value


def _chosen(field: Field, value: Any) -> Any:
    choices = ", ".join(field.choices)
    if not field.several:
        if value not in field.choices:
            raise _refused(field, f"Choose one of {choices}.")
        return value
    if len(value) < field.least or any(one not in field.choices for one in value):
        raise _refused(field, f"Choose at least one of {choices}." if field.least else f"Choose from {choices}.")
    return [choice for choice in field.choices if choice in value]


def _listed(field: Field, value: Iterable[str]) -> list[str]:
    found = [word.strip() for word in value]
    if len(found) > field.most or any(not 1 <= len(word) <= field.longest for word in found):
        raise _refused(field, f"Use at most {field.most} words of at most {field.longest} characters.")
    return list(dict.fromkeys(found))


def _refused(field: Field, message: str) -> Invalid:
    return Invalid(field.refusal or message, field.name)


def refusal_of(error: msgspec.ValidationError, where: str = "") -> Invalid:
    """msgspec's refusal of a document as `Invalid`, with the path of the member at fault below `where`."""
    message, _, path = str(error).partition(" - at `$")
    field = where + path.rstrip("`")
    if "missing required field" in message and "`" in message:
        field += f".{message.split('`')[1]}"
    elif message.startswith(UNKNOWN):
        name = message.removeprefix(UNKNOWN).rstrip("`")
        field += f".{name}"
        message = f"There is no member {name[:100]!r} here"
    return Invalid(f"{message.rstrip('.')}.", field.lstrip(".") or None)
