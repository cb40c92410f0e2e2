"""The audit log, for those who see everything."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec

from app.blueprints.api.contract import Paged, page, route
from app.domain import audit
from app.domain.errors import Invalid
from app.extensions import db

_CURSOR = re.compile(r"[0-9a-f-]{36}")


class Entry(msgspec.Struct, kw_only=True):
    """`object` is what was acted on; `detail` bears the values before and after, never a secret."""

    id: str
    at: datetime
    actor: str
    on_behalf_of: str | None
    action: str
    object: dict[str, str | None]
    detail: dict[str, Any]
    address: str | None


class EntryPage(msgspec.Struct, kw_only=True):
    """`next_cursor` leads to the entries after these, null at the end."""

    data: list[Entry]
    page: int
    limit: int
    total: int | None
    next_cursor: str | None = None


class Asked(Paged, kw_only=True):
    """`actor` a username, `object` a kind, an id or a name; `cursor` instead of `page` leads on from an answer."""

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    since: datetime | None = msgspec.field(default=None, name="from")
    until: datetime | None = msgspec.field(default=None, name="to")
    cursor: str | None = None


def show(entry: audit.AuditEntry) -> Entry:
    return Entry(
        id=entry.id,
        at=entry.at,
        actor=entry.actor,
        on_behalf_of=entry.on_behalf_of,
        action=entry.action,
        object={"kind": entry.object_kind, "id": entry.object_id, "name": entry.object_name},
        detail=entry.detail,
        address=entry.address,
    )


@route("GET", "/api/audit", scope="admin", query=Asked, answer=EntryPage)
def index(asked: Asked) -> dict[str, Any]:
    """Who did what, newest first. Filters `actor`, `action`, `object`, `from`, `to`; pages or a `cursor`."""
    found = audit.entries(
        actor=asked.actor,
        action=asked.action,
        about=asked.object,
        since=asked.since,
        until=asked.until,
    )
    answer = page(found, show)
    if asked.cursor:
        if not _CURSOR.fullmatch(asked.cursor):
            raise Invalid("Give the `next_cursor` of an answer.", "cursor")
        rows = db.session.scalars(found.where(audit.AuditEntry.id < asked.cursor).limit(asked.limit)).all()
        answer["data"] = [show(row) for row in rows]
    full = len(answer["data"]) == answer["limit"]
    return {**answer, "next_cursor": answer["data"][-1].id if full else None}
