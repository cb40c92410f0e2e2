"""Settings that admins store in the database. They act on every process within a second or two, without a restart.

What the settings file or the environment decides cannot be stored: `Config.decided` names those keys. The cold side reads
the table (`in_force`), the gateway hears of it through the directory.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from flask import current_app, g
from msgspec import Meta
from sqlalchemy import JSON, String, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from app import current
from app.clock import now
from app.domain import audit, fields, names
from app.domain.catalog import find_model
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Invalid
from app.domain.person import Person
from app.extensions import Base, db
from app.runtime import logs
from config import Config, LogComponent, LogLevel

IN_FORCE_S = 1.0
LAST = "portico_last_settings"
LONGEST_LIFETIME = 3650
LONGEST_BANNER = 200
STOP_STATUSES = (429, 402)
PLACES = {"file": "settings file", "environment": "environment"}


def _banner(value: str) -> str:
    if len(value) > LONGEST_BANNER or not value.isprintable():
        raise Invalid(f"Enter one line of at most {LONGEST_BANNER} characters.", "portal.banner")
    return value


def _stop_status(value: Any) -> int:
    if value not in STOP_STATUSES:
        raise Invalid("Choose 429 or 402.", "gateway.budget_stop_status")
    return int(value)


def _levels(value: Any) -> dict[str, str]:
    try:
        return dict(msgspec.convert(value, dict[LogComponent, LogLevel]))
    except msgspec.ValidationError as error:
        raise Invalid(f"This is no object of components and their levels: {error}.", "log.levels") from None


def _model(value: Any) -> str:
    if find_model(value) is None:
        raise Invalid(f"There is no model {value[:100]!r}.", "gateway.default_model")
    return str(value)


class SetElsewhere(Conflict):
    """The settings file or the environment decides this setting."""

    code = "set_elsewhere"


class SettingFields(msgspec.Struct, kw_only=True):
    """The settings that can be stored. `portal_name` is the setting `portal.name`."""

    portal_name: Annotated[
        str,
        Meta(
            max_length=100,
            title="Name of the portal",
            description="In the masthead, in the title of every page and in e-mails. Empty for Portico.",
            extra={"read": names.checked},
        ),
    ] = "Portico"
    portal_banner: Annotated[
        Annotated[str, Meta(max_length=LONGEST_BANNER)] | None,
        Meta(
            title="Banner",
            description="One line above every page that nobody can dismiss, such as the kind of data that is allowed. "
            "At most 200 characters. Empty for none.",
            extra={"read": _banner},
        ),
    ] = None
    keys_default_lifetime_days: Annotated[
        int,
        Meta(ge=0, le=LONGEST_LIFETIME, title="Default lifetime of a key", description="In days. 0 for no end."),
    ] = 90
    keys_max_lifetime_days: Annotated[
        int,
        Meta(
            ge=0,
            le=LONGEST_LIFETIME,
            title="Maximum lifetime of a key",
            description="In days, counted from the moment the end is set. 0 for no maximum. Keys that exist keep their end.",
        ),
    ] = 0
    gateway_budget_stop_status: Annotated[
        int,
        Meta(
            ge=402,
            le=429,
            title="Status of a refusal by budget",
            description="For clients that speak OpenAI’s dialect. Some repeat every 429 and show no message.",
            extra={"read": _stop_status},
        ),
    ] = 429
    gateway_default_model: Annotated[
        Annotated[str, Meta(max_length=200)] | None,
        Meta(
            title="Default model",
            description="Serves requests for a name that no model has. Empty to refuse them.",
            extra={"read": _model, "attributes": {"list": "models", "spellcheck": "false"}},
        ),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(title="Log level", description="Of every process, for this level and above."),
    ] = "info"
    log_levels: Annotated[
        dict[str, str],
        Meta(
            title="Log levels of components",
            description='JSON with the levels of single components, such as {"gateway": "debug"}. Components: '
            + ", ".join(get_args(LogComponent))
            + ".",
            extra={"read": _levels},
        ),
    ] = msgspec.field(default_factory=dict)
    log_retention_days: Annotated[
        int, Meta(ge=1, le=3650, title="Retention of logs", description="In days. The database forgets older lines.")
    ] = 30


KEYS = {field.name: field.name.replace("_", ".", 1) for field in fields.fields_of(SettingFields)}
NAMES = {key: name for name, key in KEYS.items()}


class Setting(Base):
    """One stored setting."""

    __tablename__ = "setting"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)
    at: Mapped[datetime] = mapped_column(default=now)
    by: Mapped[str] = mapped_column(String(64))


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as admins see it. A secret has no value, only whether it is set."""

    key: str
    value: Any
    default: Any
    source: Literal["default", "file", "environment", "stored"]
    editable: bool
    secret: bool
    is_set: bool


# By how a key ends, so that a new secret is one without being listed here; and addresses that may hold a password.
SECRET = re.compile(
    r"(secret|password|passphrase|token|pepper|encryption_keys?|master_key)$|^(database|redis|webhook)\.url$"
)


def in_force(config: Config) -> Config:
    """`config` with the stored settings, read again after a second. While the database is away, those known last hold."""
    kept: tuple[float, Config, Config] | None = g.get(LAST)
    if kept is not None and kept[1] is config and time.monotonic() - kept[0] < IN_FORCE_S:
        return kept[2]
    try:
        with db.session.no_autoflush:
            found = config.with_stored(stored())
    except SQLAlchemyError:
        found = current_app.extensions.get(LAST, config)
    before: Config = current_app.extensions.get(LAST, config)
    if found.log != before.log:
        logs.follow(found.log)
    current_app.extensions[LAST] = found
    setattr(g, LAST, (time.monotonic(), config, found))
    return found


def stored() -> dict[str, Any]:
    """The stored settings by key, in the current transaction."""
    return {key: value for key, value in db.session.execute(select(Setting.key, Setting.value))}


def all_() -> list[Shown]:
    """Every setting that there is, in the order of the file, with its value in force."""
    config, kept = current.config(), stored()
    shown = []
    for section in msgspec.structs.fields(Config):
        values = getattr(config, section.name)
        if not isinstance(values, msgspec.Struct):
            continue
        for field in msgspec.structs.fields(values):
            key, value = f"{section.name}.{field.name}", getattr(values, field.name)
            source = config.decided.get(key) or ("stored" if key in kept else "default")
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            secret = SECRET.search(key) is not None
            shown.append(
                Shown(
                    key=key,
                    value=None if secret else value,
                    default=None if secret else default,
                    source=source,
                    editable=key in NAMES and key not in config.decided,
                    secret=secret,
                    is_set=value is not None,
                )
            )
    return shown


def values() -> SettingFields:
    """The values in force of the settings that can be stored."""
    config = current.config()
    sections = {name: key.partition(".")[::2] for name, key in KEYS.items()}
    return SettingFields(**{name: getattr(getattr(config, section), key) for name, (section, key) in sections.items()})


def update(changes: Mapping[str, Any], *, by: Person | None) -> None:
    """Store settings, by key; None goes back to the default. Raises `Invalid` naming the key, or `Conflict` for a key that
    the settings file or the environment decides; then nothing is changed."""
    config = current.config()
    for key in changes:
        if key not in NAMES:
            raise Invalid("This setting can't be changed here.", key)
        if key in config.decided:
            raise SetElsewhere(f"{key} is set in the {PLACES[config.decided[key]]}.", key)
    rows = {row.key: row for row in db.session.scalars(select(Setting))}
    before = {key: rows[key].value if key in rows else None for key in changes}
    after = {key: _checked(key, value) for key, value in changes.items()}
    whose = by.username if by else "system"
    for key, value in after.items():
        if value is None:
            if key in rows:
                db.session.delete(rows[key])
        elif key in rows:
            rows[key].value, rows[key].at, rows[key].by = value, now(), whose
        else:
            db.session.add(Setting(key=key, value=value, by=whose))
    for key, value in after.items():
        if value != before[key]:
            audit.record(by, "setting.update", "setting", key, name=key, before={key: before[key]}, after={key: value})
    mark_for_publication("directory")
    db.session.flush()
    read_anew()


def read_anew() -> None:
    """What follows in this request sees what is stored now, after a change or one that was taken back."""
    g.pop(LAST, None)


def _checked(key: str, value: Any) -> Any:
    """The value to store; None for none. Raises `Invalid` naming the key."""
    if value is None:
        return None
    holder = SettingFields()
    name = NAMES[key]
    try:
        fields.fill(SettingFields, holder, {name: value})
    except Invalid as error:
        raise Invalid(error.message, key) from None
    return getattr(holder, name)
