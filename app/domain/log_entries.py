"""Log lines in the database: what the processes wrote, for `log.retention_days`. Secrets are masked before they get here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlalchemy import Index, Select, String, Text, cast, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.extensions import Base, db
from config import LogComponent, LogLevel

LEVELS: tuple[str, ...] = get_args(LogLevel)  # from the least to the most serious
COMPONENTS: tuple[str, ...] = get_args(LogComponent)
OWN = ("at", "level", "event", "component", "request_id")  # what is no context


class LogEntry(Base):
    """One line. `id` is its place in Redis's stream, so that it is kept once."""

    __tablename__ = "log_entry"
    __table_args__ = (
        Index(None, "at"),
        Index(None, "component", "id"),
        Index(None, "level", "id"),
        Index(None, "request_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[datetime]
    level: Mapped[int]  # its place in `LEVELS`
    component: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(String(64))
    context: Mapped[dict[str, Any]]

    @property
    def level_name(self) -> str:
        return LEVELS[self.level]


def search(
    *,
    level: str | None = None,
    component: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    search: str | None = None,
) -> Select[LogEntry]:
    """A query of the lines that match, newest first. `level` means that one and above; `until` is exclusive; `search` is a
    text within message, request id and context."""
    query = select(LogEntry).order_by(LogEntry.id.desc())
    if level:
        query = query.where(LogEntry.level >= LEVELS.index(level))
    if component:
        query = query.where(LogEntry.component == component)
    if since:
        query = query.where(LogEntry.at >= since)
    if until:
        query = query.where(LogEntry.at < until)
    if search:
        columns = (LogEntry.message, LogEntry.request_id, cast(LogEntry.context, Text))
        query = query.where(or_(*(column.icontains(search, autoescape=True) for column in columns)))
    return query


def keep(lines: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Store lines by their ids; those that are here already stay as they are."""
    if not lines:
        return
    rows = [_row(id, line) for id, line in lines]
    kind = postgresql if db.engine.dialect.name == "postgresql" else sqlite
    db.session.execute(kind.insert(LogEntry).on_conflict_do_nothing(), rows)


def forget(days: int, limit: int) -> int:
    """Delete at most `limit` lines that are older than this many days; returns how many went."""
    old = select(LogEntry.id).where(LogEntry.at < now() - timedelta(days=days)).order_by(LogEntry.at).limit(limit)
    ids = list(db.session.scalars(old))
    if ids:
        db.session.execute(delete(LogEntry).where(LogEntry.id.in_(ids)))
    return len(ids)


def _row(id: str, line: dict[str, Any]) -> dict[str, Any]:
    level, component, request_id = (str(line.get(name) or "") for name in ("level", "component", "request_id"))
    level = {"critical": "error"}.get(level, level)
    return {
        "id": id,
        "at": _time(line.get("at")),
        "level": LEVELS.index(level) if level in LEVELS else LEVELS.index("info"),
        "component": component if component in COMPONENTS else "portal",
        "message": str(line.get("event", "")).replace("\0", ""),
        "request_id": request_id[:64] or None,
        "context": {name: value for name, value in line.items() if name not in OWN},
    }


def _time(text: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return now()
    return moment if moment.tzinfo else now()
