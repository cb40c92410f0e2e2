"""Settings that an adapter declares about itself, so that its form and its checks need no code of their own.

An adapter's settings are a msgspec Struct; a field's title, help and secrecy stand in its `Meta`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

SECRET = {"secret": True}

Timeout = Annotated[
    float,
    Meta(
        ge=1,
        le=3600,
        title="Timeout (seconds)",
        description="For connecting, for the first byte and for each silence; not for the whole call.",
    ),
]
Disconnect = Annotated[
    Literal["cancel", "drain"],
    Meta(
        title="When the client goes away",
        description="cancel: stop the upstream at once; drain: let it finish. What was produced is billed either way.",
    ),
]


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every provider can be told."""

    timeout_s: Timeout = 60.0
    on_disconnect: Disconnect = "cancel"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, as a form shows it. `type` is text, number, boolean, choice or json."""

    name: str
    title: str
    help: str
    type: Literal["text", "number", "boolean", "choice", "json"]
    required: bool
    secret: bool
    default: Any = None
    choices: tuple[str, ...] = ()


class SettingsError(ValueError):
    """A provider's settings that its adapter cannot use; `field` names the one, the message is safe to show."""

    def __init__(self, field: str | None, message: str) -> None:
        super().__init__(message)
        self.field = field


def fields_of(settings: type[Settings]) -> list[Field]:
    """The settings of an adapter in the order it declares them, its own before the common ones."""
    hints = get_type_hints(settings, include_extras=True)
    common = {field.name for field in msgspec.structs.fields(Settings)}
    declared = sorted(msgspec.structs.fields(settings), key=lambda field: field.name in common)
    return [_field(item, hints[item.name]) for item in declared]


def _field(item: msgspec.structs.FieldInfo, hint: Any) -> Field:
    meta = Meta()
    if get_origin(hint) is Annotated:
        hint, meta = get_args(hint)[:2]
    choices: tuple[str, ...] = ()
    options = {
        get_args(option)[0] if get_origin(option) is Annotated else option for option in get_args(hint) or (hint,)
    }
    if get_origin(hint) is Literal:
        kind, choices = "choice", get_args(hint)
    elif bool in options:
        kind = "boolean"
    elif options & {int, float}:
        kind = "number"
    elif options & {str}:
        kind = "text"
    else:
        kind = "json"
    return Field(
        name=item.name,
        title=meta.title or item.name.replace("_", " ").capitalize(),
        help=meta.description or "",
        type=kind,  # type: ignore[arg-type]
        required=item.required,
        secret=bool((meta.extra or {}).get("secret")),
        default=None if item.default is msgspec.NODEFAULT else item.default,
        choices=choices,
    )


def secret_names(settings: type[Settings]) -> frozenset[str]:
    return frozenset(field.name for field in fields_of(settings) if field.secret)


def checked(settings: type[Settings], values: dict[str, Any]) -> Any:
    """`values` as the adapter's settings; raises `SettingsError` naming the first field that is wrong."""
    try:
        return msgspec.convert(values, settings, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, SettingsError):  # the adapter's own judgement
            raise error.__cause__ from None
        message, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`").partition(".")[0].partition("[")[0] or None
        if field is None and "`" in message:  # an unknown or missing field is told in the message
            field = message.split("`")[1]
        raise SettingsError(field, message) from None
