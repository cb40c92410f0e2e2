"""The log lines of every process, for people who see everything."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from app.blueprints.api.contract import Cursored, CursorPage, page, route
from app.domain import log_entries
from app.domain.log_entries import LogEntry
from config import LogComponent, LogLevel


class LogLine(msgspec.Struct, kw_only=True):
    """`context` is what else the line says, with secrets masked."""

    id: str
    time: datetime
    level: Literal["debug", "info", "warning", "error"]
    component: str
    message: str
    request_id: str | None
    context: dict[str, Any]


class LogPage(CursorPage, kw_only=True):
    data: list[LogLine]


class Query(Cursored, kw_only=True):
    """`level` means that level and above; `search` is a text within message, request id and context."""

    level: LogLevel | None = None
    component: LogComponent | None = None
    search: str | None = None
    since: datetime | None = msgspec.field(default=None, name="from")
    until: datetime | None = msgspec.field(default=None, name="to")


def show(entry: LogEntry) -> LogLine:
    values = {name: getattr(entry, name) for name in ("id", "component", "message", "request_id", "context")}
    return LogLine(time=entry.at, level=entry.level_name, **values)  # type: ignore[arg-type]


@route("GET", "/api/logs", scope="admin", query=Query, answer=LogPage)
def index(query: Query) -> dict[str, Any]:
    """Lists what the processes have logged, newest first."""
    found = log_entries.search(
        level=query.level, component=query.component, since=query.since, until=query.until, search=query.search
    )
    return page(found, show)
