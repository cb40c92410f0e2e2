"""The encryption keys by their ids, and the rotations from one to the next. The keys themselves are never in the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Index, String, func, select, text
from sqlalchemy.orm import Mapped, mapped_column

from app import current
from app.clock import now
from app.domain.credentials import Credential
from app.domain.providers import Provider
from app.extensions import Base, db
from app.runtime.ids import new_id
from app.runtime.sealing import key_id, key_id_of

State = Literal["active", "retiring", "retired"]
Source = Literal["file", "settings"]
SEALED: tuple[type[Provider] | type[Credential], ...] = (Provider, Credential)  # the tables with secrets that last


class EncryptionKey(Base):
    """A key that this Portico has used. `created_at` is when it was first seen."""

    __tablename__ = "encryption_key"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    retired_at: Mapped[datetime | None]


class Rotation(Base):
    """One move of every secret to another key. `to_key` is empty until that key is safely kept."""

    __tablename__ = "key_rotation"
    __table_args__ = (
        Index(
            "uq_key_rotation_running",
            "state",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    state: Mapped[str] = mapped_column(String(8), default="running")
    total: Mapped[int] = mapped_column(default=0)
    done: Mapped[int] = mapped_column(default=0)
    from_key: Mapped[str] = mapped_column(String(12))
    to_key: Mapped[str] = mapped_column(String(12), default="")
    started_by: Mapped[str | None] = mapped_column(String(64))
    started_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None]


class KeyInUse(NamedTuple):
    """An encryption key, and how many secrets of the database name it."""

    id: str
    state: State
    created_at: datetime
    retired_at: datetime | None
    secrets: int


def source() -> Source:
    return "settings" if current.config().security.encryption_keys else "file"


def ids() -> list[str]:
    """The ids of the kept keys, the active one first."""
    return [key_id(key) for key in current.config().encryption_keys()]


def note_keys() -> None:
    """Note the kept keys that were not seen before."""
    for id in ids():
        found = db.session.get(EncryptionKey, id)
        if found is None:
            db.session.add(EncryptionKey(id=id))
        elif found.retired_at is not None:  # it was put back
            found.retired_at = None
    db.session.flush()


def every() -> list[KeyInUse]:
    """The keys that were ever seen, the active one first, then the newest."""
    kept, counted = ids(), counts()
    rows = {row.id: row for row in db.session.scalars(select(EncryptionKey))}
    found = [
        KeyInUse(
            id,
            "active" if id == kept[0] else "retiring" if id in kept else "retired",
            rows[id].created_at if id in rows else now(),
            rows[id].retired_at if id in rows and id not in kept else None,
            counted.get(id, 0),
        )
        for id in dict.fromkeys((*kept, *rows))
    ]
    return sorted(found, key=lambda key: (key.state != "active", -key.created_at.timestamp(), key.id))


def counts() -> dict[str, int]:
    """How many secrets of the database each key has sealed, by its id; the empty one is of texts that name none."""
    found: dict[str, int] = {}
    for table in SEALED:
        for sealed in db.session.scalars(select(table.sealed).where(table.sealed.is_not(None))):
            id = key_id_of(str(sealed)) or ""
            found[id] = found.get(id, 0) + 1
    return found


def running() -> Rotation | None:
    return db.session.scalar(select(Rotation).where(Rotation.state == "running"))


def latest() -> Rotation | None:
    """The rotation that was started last."""
    return db.session.scalar(select(Rotation).order_by(Rotation.id.desc()).limit(1))


def summary(rotation: Rotation) -> dict[str, Any]:
    names = ("total", "done", "from_key", "to_key")
    return {name: getattr(rotation, name) for name in names}


def age_of_active() -> datetime | None:
    """Since when the active key is known; None if it was never noted."""
    row = db.session.get(EncryptionKey, ids()[0])
    return row.created_at if row else None


def waiting(to_key: str, limit: int) -> list[Provider | Credential]:
    """Providers, then people's own credentials, whose secrets are not sealed with this key yet."""
    found: list[Provider | Credential] = []
    for table in SEALED:
        query = select(table).where(table.sealed.is_not(None), ~table.sealed.startswith(f"{to_key}:", autoescape=True))
        found += db.session.scalars(query.order_by(table.id).limit(limit - len(found)))
    return found


def count_sealed() -> int:
    return sum(
        db.session.scalar(select(func.count()).select_from(table).where(table.sealed.is_not(None))) or 0
        for table in SEALED
    )
