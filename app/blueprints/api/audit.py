"""The audit log, for people who see everything."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from app.blueprints.api.contract import Cursored, CursorPage, page, route
from app.domain import audit, audit_chain
from app.domain.audit_chain import Verification


class Entry(msgspec.Struct, kw_only=True):
    """`object` is what the action was about. `detail` has the values before and after, never a secret."""

    id: str
    at: datetime
    actor: str
    on_behalf_of: str | None
    action: str
    object: dict[str, str | None]
    detail: dict[str, Any]
    address: str | None


class EntryPage(CursorPage, kw_only=True):
    data: list[Entry]


class Query(Cursored, kw_only=True):
    """`actor` is a username; `action` may end in `.*`; `object` is a kind, an id or a name; `address` is where it came from;
    `search` is a text within the actor, the action, or the object's id or name."""

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    address: str | None = None
    search: str | None = None
    since: datetime | None = msgspec.field(default=None, name="from")
    until: datetime | None = msgspec.field(default=None, name="to")


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


@route("GET", "/api/audit", scope="admin", query=Query, answer=EntryPage)
def index(query: Query) -> dict[str, Any]:
    """Lists who did what, newest first."""
    found = audit.entries(
        actor=query.actor,
        action=query.action,
        about=query.object,
        address=query.address,
        search=query.search,
        since=query.since,
        until=query.until,
    )
    return page(found, show)


@route("GET", "/api/audit/verification", scope="admin", answer=Verification)
def verification() -> Verification:
    """Reads the whole audit log and says whether it is as it was written, or names the first entry that was edited,
    removed, swapped or cut off."""
    return audit_chain.verify()
