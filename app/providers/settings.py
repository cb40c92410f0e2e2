"""Settings that an adapter declares about itself, so that its form and its checks need no code of their own.

An adapter's settings are a msgspec Struct; a field's title, help and role stand in its `Meta`. The role tells what more
is asked of a setting:

- `address`: where requests go, and in which schemes. A secret that was given for one origin is not sent to another.
- `secret`: sealed, never shown, sent in a header.
- `secret_env`: the name of an environment variable that holds a secret, instead of the setting with the secret. Only
  variables that the operator allows can be named.

Nothing outside of an adapter knows a setting by its name.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from app.providers.addresses import HTTP, PORTS, Origin, origin_of

Role = Literal["address", "secret", "secret_env"]
SECRET: dict[str, Any] = {"role": "secret"}


def address(*schemes: str) -> dict[str, Any]:
    """The `extra` of an address in one of these schemes, the usual one first."""
    return {"role": "address", "schemes": schemes}


def secret_env(secret: str) -> dict[str, Any]:
    """The `extra` of a variable's name that may be given instead of the setting `secret`."""
    return {"role": "secret_env", "secret": secret}


ADDRESS = address(*HTTP)

Timeout = Annotated[
    float,
    Meta(
        ge=1,
        le=3600,
        title="Timeout (seconds)",
        description="For the first byte and each idle time of an answer, unless they have their own; not for the whole call.",
    ),
]
Seconds = Annotated[float, Meta(ge=1, le=3600)]
ConnectTimeout = Annotated[
    Seconds | None,
    Meta(title="Connect timeout (seconds)", description="Usually the timeout, and at most 10 seconds."),
]
FirstByteTimeout = Annotated[
    Seconds | None,
    Meta(
        title="First byte timeout (seconds)",
        description="For the beginning of an answer, which comes late if it is not streamed. Usually the timeout.",
    ),
]
IdleTimeout = Annotated[
    Seconds | None,
    Meta(title="Idle timeout (seconds)", description="Between two pieces of an answer. Usually the timeout."),
]
TotalTimeout = Annotated[
    float,
    Meta(
        ge=1, le=86_400, title="Total timeout (seconds)", description="For a whole answer, from its request to its end."
    ),
]
Disconnect = Annotated[
    Literal["cancel", "drain"],
    Meta(
        title="When the client goes away",
        description="cancel: stop the upstream at once; drain: let it finish. What was produced is billed either way.",
    ),
]


PersonalCredentials = Annotated[
    bool,
    Meta(
        title="Personal credentials",
        description="People can store a credential of their own, which is sent with their own calls instead of the secret here.",
    ),
]


class Deadlines(NamedTuple):
    """How long an upstream is waited for, seconds: to connect, for the first byte of its answer, between two pieces of it,
    and for all of it."""

    connect_s: float
    first_byte_s: float
    idle_s: float
    total_s: float

    @classmethod
    def alike(cls, seconds: float, total_s: float = 3600.0) -> Deadlines:
        return cls(seconds, seconds, seconds, total_s)


MOST_CONNECTING_S = 10.0  # unless a provider's settings say otherwise


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every provider can be told."""

    timeout_s: Timeout = 60.0
    connect_timeout_s: ConnectTimeout = None
    first_byte_timeout_s: FirstByteTimeout = None
    idle_timeout_s: IdleTimeout = None
    total_timeout_s: TotalTimeout = 3600.0
    on_disconnect: Disconnect = "cancel"
    personal_credentials: PersonalCredentials = False

    @property
    def deadlines(self) -> Deadlines:
        return Deadlines(
            self.connect_timeout_s or min(self.timeout_s, MOST_CONNECTING_S),
            self.first_byte_timeout_s or self.timeout_s,
            self.idle_timeout_s or self.timeout_s,
            self.total_timeout_s,
        )

    def secrets(self) -> tuple[str, ...]:
        """The secrets in the clear, those from the environment too: to send them, and to find them in an upstream's words."""
        found = []
        for field in fields_of(type(self)):
            value = getattr(self, field.name) if field.kept else None
            found.append(os.environ.get(value) if value and field.role == "secret_env" else value)
        return tuple(filter(None, found))

    def __repr__(self) -> str:
        """Without secrets, so that neither a log nor a traceback tells them."""
        told = {field.name: getattr(self, field.name) for field in fields_of(type(self))}
        told |= {name: "…" for name in names_with(type(self), "secret") if told[name]}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in told.items())})"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, as a form shows it. `type` is text, number, boolean, choice or json."""

    name: str
    title: str
    help: str
    type: Literal["text", "number", "boolean", "choice", "json"]
    required: bool
    role: Role | None = None
    schemes: tuple[str, ...] = ()  # of an address
    secret: str | None = None  # whose variable this names
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
    """The settings of an adapter in the order it declares them: addresses first, the common ones last. Raises `TypeError`
    for a role that can't be kept."""
    hints = get_type_hints(settings, include_extras=True)
    common = {field.name for field in msgspec.structs.fields(Settings)}
    declared = sorted(msgspec.structs.fields(settings), key=lambda field: field.name in common)
    found = tuple(
        sorted((_field(item, hints[item.name]) for item in declared), key=lambda field: field.role != "address")
    )
    secrets = [field.name for field in found if field.role == "secret"]
    for field in found:
        if (
            field.role is not None
            and (field.role not in get_args(Role) or field.type != "text")
            or field.role == "address"
            and (not field.schemes or not PORTS.keys() >= set(field.schemes))
            or field.role == "secret_env"
            and field.secret not in secrets
        ):
            raise TypeError(f"{settings.__name__}.{field.name}: nothing can be asked of such a setting by its role")
    return found


def _field(item: msgspec.structs.FieldInfo, hint: Any) -> Field:
    meta = Meta()
    if get_origin(hint) is Annotated:
        hint, meta = get_args(hint)[:2]
    choices: tuple[str, ...] = ()
    is_union = get_origin(hint) in (Union, UnionType)
    options = {
        get_args(option)[0] if get_origin(option) is Annotated else option
        for option in (get_args(hint) if is_union else (hint,))
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
    extra = meta.extra or {}
    return Field(
        name=item.name,
        title=meta.title or item.name.replace("_", " ").capitalize(),
        help=meta.description or "",
        type=kind,  # type: ignore[arg-type]
        required=item.required,
        role=extra.get("role"),
        schemes=extra.get("schemes", ()),
        secret=extra.get("secret"),
        default=None if item.default is msgspec.NODEFAULT else item.default,
        choices=choices,
    )


def names_with(settings: type[Settings], *roles: Role) -> tuple[str, ...]:
    """The settings that have one of these roles, in their order."""
    return tuple(field.name for field in fields_of(settings) if field.role in roles)


def other_forms(settings: type[Settings]) -> dict[str, tuple[str, ...]]:
    """The settings that can be given instead of a secret or of the name of its variable."""
    forms: dict[str, tuple[str, ...]] = {}
    for field in fields_of(settings):
        if field.secret is not None:
            forms[field.name] = (field.secret,)
            forms[field.secret] = (*forms.get(field.secret, ()), field.name)
    return forms


def schemes_of(settings: type[Settings]) -> dict[str, tuple[str, ...]]:
    """The addresses among the settings, and the schemes of each."""
    return {field.name: field.schemes for field in fields_of(settings) if field.role == "address"}


def origins_of(settings: type[Settings], values: Mapping[str, Any]) -> dict[str, Origin]:
    """Where each address leads, without its path, defaults filled in: where secrets would be sent to. What is no address
    leads nowhere and is left out."""
    found = {}
    for field in fields_of(settings):
        if field.role == "address":
            try:
                found[field.name] = origin_of(values.get(field.name, field.default) or "", field.schemes)._replace(
                    path=""
                )
            except ValueError:
                continue
    return found


def destination_of(settings: type[Settings], values: Mapping[str, Any]) -> str:
    """Where secrets would be sent to, as one text of 64 characters: another one as soon as an address has another origin."""
    origins = sorted(origins_of(settings, values).items())
    return hashlib.sha256(repr((settings.__name__, [(name, *origin) for name, origin in origins])).encode()).hexdigest()


def with_credential(settings: type[Settings], values: Mapping[str, Any], credential: str) -> dict[str, Any]:
    """`values` with a person's own credential instead of the provider's secrets. Raises `SettingsError` for an adapter that
    has none."""
    own = names_with(settings, "secret", "secret_env")
    first = next(iter(names_with(settings, "secret")), None)
    if first is None:
        raise SettingsError("personal_credentials", "providers of this kind have no secret")
    return {name: value for name, value in values.items() if name not in own} | {first: credential}


def checked(settings: type[Settings], values: Mapping[str, Any], variables: Variables) -> Any:
    """`values` as the adapter's settings; raises `SettingsError` naming the first field that is wrong."""
    try:
        made = msgspec.convert(values, settings, strict=False)
    except msgspec.ValidationError as error:
        said = str(error)
        for name in names_with(settings, "secret"):  # an adapter's own judgement may tell what it judged
            if isinstance(values.get(name), str) and values[name]:
                said = said.replace(values[name], "…")
        if isinstance(error.__cause__, SettingsError):
            raise SettingsError(error.__cause__.field, said.partition(" - at `$")[0]) from None
        message, _, path = said.partition(" - at `")  # `$.name`, `$.name[...]`, or `key` in `$.name`
        place = re.search(r"\$\.(\w+)", path)
        field = place[1] if place else None
        if field is None and "`" in message:  # an unknown or missing field is told in the message
            field = message.split("`")[1]
        raise SettingsError(field, message) from None
    for item in fields_of(settings):
        value = getattr(made, item.name)
        if item.role and isinstance(value, str):
            _check_role(item, value, variables)
    return made


_SENDABLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def is_sendable(secret: str) -> bool:
    """Whether a secret can stand in a header: printable ASCII without line breaks or blanks around it."""
    return _SENDABLE.fullmatch(secret) is not None


def _check_role(item: Field, value: str, variables: Variables) -> None:
    match item.role:
        case "address":
            try:
                origin_of(value, item.schemes)
            except ValueError as error:
                raise SettingsError(item.name, str(error)) from None
        case "secret":
            if value and not is_sendable(value):
                raise SettingsError(item.name, "expected printable ASCII without line breaks or blanks around it")
        case "secret_env":
            if not variables.allow(value):
                raise SettingsError(
                    item.name,
                    "expected the name of a variable that this deployment allows for providers (upstream.env)",
                )
