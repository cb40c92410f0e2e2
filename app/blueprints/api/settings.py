"""Settings: those of the file and the environment, and those that admins store."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET

from app.blueprints.api.contract import Body, me, route, sent_members, with_fields
from app.domain import fields, settings


class Setting(msgspec.Struct, kw_only=True):
    """One setting, in force. A secret has no `value`; `is_set` says whether there is one."""

    key: str
    value: Any
    default: Any
    source: Literal["default", "file", "environment", "stored"]
    editable: bool
    secret: bool
    is_set: bool


class SettingList(msgspec.Struct, kw_only=True):
    data: list[Setting]


_Members: Any = with_fields(
    Body,
    settings.SettingFields,
    absent=UNSET,
    nullable=[field.name for field in fields.fields_of(settings.SettingFields)],
)


Change: Any = msgspec.defstruct(
    "SettingsChange",
    [(field.name, field.type, UNSET) for field in msgspec.structs.fields(_Members)],
    bases=(Body,),
    namespace={"__doc__": "Settings by key. What you leave out stays unchanged; null goes back to the default."},
    module=__name__,
    rename=settings.KEYS,
    kw_only=True,
)


@route("GET", "/api/settings", scope="admin", answer=SettingList)
def index() -> dict[str, Any]:
    """Lists all settings, where each comes from, and whether it can be changed here."""
    return {"data": settings.all_()}


@route("PATCH", "/api/settings", scope="admin", answer=SettingList, body=Change, writes=True, versioned_by=("data",))
def change(body: Body) -> dict[str, Any]:
    """Stores settings. They act within two seconds, without a restart."""
    settings.update({settings.KEYS[name]: value for name, value in sent_members(body).items()}, by=me())
    return {"data": settings.all_()}
