"""Saved configurations: what providers, models, endpoints and routing were at a moment, as a document without secrets.

Exactly one is the default: the first one, and from then on the one that was activated last. `app.workflows.config_changes`
makes and activates them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import Index, Select, String, Text, func, select, text
from sqlalchemy.orm import Mapped, defer, mapped_column

from app.clock import now
from app.domain import audit, fields, names
from app.domain.errors import Conflict, NotFound
from app.domain.person import Person
from app.extensions import Base, db
from app.runtime.ids import new_id

LONGEST_DESCRIPTION = 2_000
MOST_AUTOMATIC = 20  # of those that were saved before a change, the newest stay


class SavedConfigFields(msgspec.Struct, kw_only=True):
    """What people say of a saved configuration."""

    name: Annotated[
        str,
        Meta(
            max_length=names.LONGEST,
            title="Name",
            description=f"At most {names.LONGEST} characters.",
            extra={"needed": "Enter a name.", "read": names.checked},
        ),
    ]
    description: Annotated[str, Meta(max_length=LONGEST_DESCRIPTION, title="Description", extra={"lines": 3})] = ""


class SavedConfig(Base):
    """`document` is what `app.workflows.config_document` writes. `automatic` ones were saved before a change."""

    __tablename__ = "saved_config"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(names.LONGEST))
    description: Mapped[str] = mapped_column(Text, default="")
    document: Mapped[dict[str, Any]]
    is_default: Mapped[bool] = mapped_column(default=False)
    automatic: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    def summary(self) -> dict[str, Any]:
        return fields.told(SavedConfigFields, self)


Index("uq_saved_config_name", func.lower(SavedConfig.name), unique=True)
Index(
    "uq_saved_config_default",
    SavedConfig.is_default,
    unique=True,
    sqlite_where=text("is_default"),
    postgresql_where=text("is_default"),
)


def get(id: str) -> SavedConfig:
    """The saved configuration with this id. Raises `NotFound`."""
    found = db.session.get(SavedConfig, id)
    if found is None:
        raise NotFound("This saved configuration does not exist.")
    return found


def search(search: str | None = None) -> Select[SavedConfig]:
    """A query of the saved configurations, newest first, without their documents."""
    query = select(SavedConfig).order_by(SavedConfig.id.desc()).options(defer(SavedConfig.document))
    return query.where(SavedConfig.name.icontains(search, autoescape=True)) if search else query


def default() -> SavedConfig | None:
    """The default; None only before the first start has saved one."""
    return db.session.scalar(select(SavedConfig).where(SavedConfig.is_default))


def create(
    document: dict[str, Any], *, by: Person | None, name: str, description: str = "", automatic: bool = False
) -> SavedConfig:
    """Save a document. An automatic one gets another name if this one is taken. Raises `Invalid` or `Conflict` naming the
    field."""
    item = SavedConfig(document=document, automatic=automatic)
    _fill(item, {"name": _free(name) if automatic else name, "description": description})
    db.session.add(item)
    db.session.flush()
    audit.record(by, "config.create", "config", item.id, name=item.name, after=item.summary())
    if automatic:
        _forget_old()
    return item


def update(item: SavedConfig, *, by: Person | None, **values: Any) -> SavedConfig:
    """Change the name or the description. Raises `Invalid` or `Conflict` naming the field."""
    before = item.summary()
    _fill(item, values)
    item.updated_at = now()
    audit.record(by, "config.update", "config", item.id, name=item.name, before=before, after=item.summary())
    return item


def remove(item: SavedConfig, *, by: Person | None) -> None:
    """Delete a saved configuration. Raises `Conflict` for the default."""
    if item.is_default:
        raise Conflict("The default can't be deleted. Activate another configuration first.")
    audit.record(by, "config.delete", "config", item.id, name=item.name, before=item.summary(), after={})
    db.session.delete(item)
    db.session.flush()


def make_default(item: SavedConfig) -> None:
    """Make this one the default instead of the present one."""
    present = default()
    if present is not None and present.id != item.id:
        present.is_default = False
        db.session.flush()  # there is never more than one
    item.is_default = True


def _fill(item: SavedConfig, values: dict[str, Any]) -> None:
    fields.fill(SavedConfigFields, item, values)
    with db.session.no_autoflush:
        if item.name and _is_taken(item.name, item.id):
            raise Conflict(f"The name {item.name} is taken.", "name")


def _is_taken(name: str, id: str | None = None) -> bool:
    query = select(SavedConfig.id).where(func.lower(SavedConfig.name) == name.lower(), SavedConfig.id != (id or ""))
    return db.session.scalar(query) is not None


def _free(name: str) -> str:
    """The name, or with a number after it if it is taken."""
    found, number = name[: names.LONGEST], 1
    while _is_taken(found):
        number += 1
        end = f" ({number})"
        found = name[: names.LONGEST - len(end)] + end
    return found


def _forget_old() -> None:
    """Delete the oldest of those that were saved automatically."""
    query = search().where(SavedConfig.automatic, SavedConfig.is_default.is_(False)).offset(MOST_AUTOMATIC)
    for item in db.session.scalars(query.limit(1000)):
        db.session.delete(item)
    db.session.flush()
