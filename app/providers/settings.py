"""Settings that an adapter declares about itself, so that its form and its checks need no code of their own.

An adapter's settings are a msgspec Struct; a field's title, help and role stand in its `Meta`. The role tells what more
is asked of a setting:

- `address`: where requests go. A secret that was given for one origin is not sent to another.
- `secret`: sealed, never shown, sent in a header.
- `secret_env`: the name of an environment variable that holds a secret, beside the setting of the same name without
  `_env`. Only variables that the operator allows can be named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from app.providers.addresses import origin_of

Role = Literal["address", "secret", "secret_env"]
ADDRESS: dict[str, Role] = {"role": "address"}
SECRET: dict[str, Role] = {"role": "secret"}
SECRET_ENV: dict[str, Role] = {"role": "secret_env"}

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
    role: Role | None = None
    default: Any = None
    choices: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether it stays as it is when a form or a program leaves it out."""
        return self.role in ("secret", "secret_env")


class SettingsError(ValueError):
    """A provider's settings that its adapter cannot use; `field` names the one, the message is safe to show."""

    def __init__(self, field: str | None, message: str) -> None:
        super().__init__(message)
        self.field = field


# What the variables of other programs are called whose secrets no provider needs; only a name in full reaches them.
_OF_OTHERS = re.compile(
    r"(?:AWS|GITHUB|GH|GITLAB|CI|NPM|PYPI|TWINE|UV|DOCKER|KUBE|KUBERNETES|VAULT|POSTGRES|POSTGRESQL|DATABASE|DB|MYSQL|MONGO"
    r"|MONGODB|REDIS|VALKEY|SSH|GPG|SENTRY|STRIPE|SLACK|SMTP|MAIL|LDAP|OIDC|OAUTH|SCIM)_.*|PG[A-Z]*(?:_.*)?"
)
_ENDS_OF_OTHERS = re.compile(
    r"(?:.*_)?(?:(?:SECRET|PRIVATE|ENCRYPTION|SIGNING|ACCESS|SESSION|CSRF|JWT|SSH|HOST)_KEY|(?:SESSION|CSRF|ID|REFRESH)_TOKEN)"
)


class Variables:
    """The environment variables that providers may name: `upstream.env`."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = tuple(allowed)

    def allow(self, name: str) -> bool:
        """A name in full is allowed as it is; a pattern does not reach what is plainly another program's secret. Our own
        settings are never allowed."""
        upper = name.upper()
        if upper.startswith("CONFIG_"):
            return False
        if name in self._allowed:
            return True
        if _OF_OTHERS.fullmatch(upper):
            return False
        if any(pattern.endswith("*") and name.startswith(pattern[:-1]) for pattern in self._allowed):
            return True
        if _ENDS_OF_OTHERS.fullmatch(upper):
            return False
        return any(pattern.startswith("*") and name.endswith(pattern[1:]) for pattern in self._allowed)


@cache
def fields_of(settings: type[Settings]) -> tuple[Field, ...]:
    """The settings of an adapter in the order it declares them, its own before the common ones."""
    hints = get_type_hints(settings, include_extras=True)
    common = {field.name for field in msgspec.structs.fields(Settings)}
    declared = sorted(msgspec.structs.fields(settings), key=lambda field: field.name in common)
    return tuple(_field(item, hints[item.name]) for item in declared)


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
        role=(meta.extra or {}).get("role"),
        default=None if item.default is msgspec.NODEFAULT else item.default,
        choices=choices,
    )


def names_with(settings: type[Settings], *roles: Role) -> tuple[str, ...]:
    """The settings that have one of these roles, in their order."""
    return tuple(field.name for field in fields_of(settings) if field.role in roles)


def checked(settings: type[Settings], values: dict[str, Any], variables: Variables) -> Any:
    """`values` as the adapter's settings; raises `SettingsError` naming the first field that is wrong."""
    try:
        made = msgspec.convert(values, settings, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, SettingsError):  # the adapter's own judgement
            raise error.__cause__ from None
        message, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`").partition(".")[0].partition("[")[0] or None
        if field is None and "`" in message:  # an unknown or missing field is told in the message
            field = message.split("`")[1]
        raise SettingsError(field, message) from None
    for item in fields_of(settings):
        value = getattr(made, item.name)
        if item.role and isinstance(value, str):
            _check_role(item.name, item.role, value, variables)
    return made


_SENDABLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def _check_role(name: str, role: Role, value: str, variables: Variables) -> None:
    match role:
        case "address":
            try:
                origin_of(value)
            except ValueError as error:
                raise SettingsError(name, str(error)) from None
        case "secret":
            if value and not _SENDABLE.fullmatch(value):
                raise SettingsError(name, "expected printable ASCII without line breaks or blanks around it")
        case "secret_env":
            if not variables.allow(value):
                raise SettingsError(
                    name, "expected the name of a variable that this deployment allows for providers (upstream.env)"
                )
