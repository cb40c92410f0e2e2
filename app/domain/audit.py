"""The audit log: who did what to which object, when and from where. Each domain verb writes its own entry.

Entries are append-only and hold the values before and after, never a secret. `app.domain.audit_chain` links each to the one
before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from flask import has_request_context, request
from sqlalchemy import Index, Select, String, func, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.domain.errors import NotFound
from app.domain.person import Person
from app.domain.search import contains, one_of
from app.extensions import Base, db
from app.runtime.ids import new_id

SYSTEM = "portico"  # the actor of automatic actions
_automatic: ContextVar[str] = ContextVar("audit_actor", default=SYSTEM)


@contextmanager
def acting(name: str) -> Iterator[None]:
    """Automatic actions in this context are those of `name`, such as "scim"."""
    token = _automatic.set(name)
    try:
        yield
    finally:
        _automatic.reset(token)


class AuditEntry(Base):
    """One action. `actor` and `object_name` are text, so that they outlive the person and the object."""

    __tablename__ = "audit_entry"
    __table_args__ = (
        Index(None, "at"),
        Index(None, "actor", "at"),
        Index(None, "object_kind", "object_id", "at"),
        Index(None, "object_id"),
        Index(None, "object_name"),
        Index(None, "action"),
        Index("uq_audit_entry_position", "position", unique=True),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(default=now)
    actor_id: Mapped[str | None] = mapped_column(String(36))
    actor: Mapped[str] = mapped_column(String(64))
    on_behalf_of: Mapped[str | None] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))  # "key.revoke"
    object_kind: Mapped[str] = mapped_column(String(32))
    object_id: Mapped[str] = mapped_column(String(255))
    object_name: Mapped[str | None]
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    address: Mapped[str | None] = mapped_column(String(64))
    position: Mapped[int | None]  # in the chain, from 1; both are set when the transaction commits
    mac: Mapped[str | None] = mapped_column(String(64))


def record(
    by: Person | None,
    action: str,
    kind: str,
    id: str,
    *,
    name: str | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str | None = None,
    on_behalf_of: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Add one entry to the current transaction. `by` is None for Portico itself, or for whom `acting` names; `facts`
    are added to its detail.

    Pass no secrets.
    """
    detail: dict[str, Any] = {}
    if before is not None and after is not None:
        changed = [key for key in after if before.get(key) != after[key]]
        before, after = {key: before.get(key) for key in changed}, {key: after[key] for key in changed}
    values = {"before": before, "after": after, "reason": reason}
    detail.update({key: value for key, value in values.items() if value is not None} | dict(facts or {}))
    entry = AuditEntry(
        actor_id=by.id if by else None,
        actor=by.username if by else _automatic.get(),
        on_behalf_of=on_behalf_of,
        action=action,
        object_kind=kind,
        object_id=id,
        object_name=name,
        detail=detail,
        address=request.remote_addr if has_request_context() else None,
    )
    db.session.add(entry)
    return entry


def last_names(kind: str, ids: Iterable[str]) -> dict[str, str]:
    """The names that objects of a kind had last, by id: the ledger refers to some that are gone."""
    entry = AuditEntry
    query = select(entry.object_id, entry.object_name).where(
        entry.object_kind == kind, entry.object_name.is_not(None), one_of(entry.object_id, list(ids))
    )
    return {id: name for id, name in db.session.execute(query.order_by(entry.id)) if name}


def counts(since: datetime, until: datetime) -> dict[str, int]:
    """How often each action was recorded in [since, until)."""
    query = select(AuditEntry.action, func.count()).where(AuditEntry.at >= since, AuditEntry.at < until)
    return {action: number for action, number in db.session.execute(query.group_by(AuditEntry.action))}


def entries(
    *,
    actor: str | None = None,
    action: str | None = None,
    kind: str | None = None,
    about: str | None = None,
    address: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    search: str | None = None,
) -> Select[AuditEntry]:
    """A query of the matching entries, newest first.

    An `action` that ends in `.*` means all actions of that noun. `about` is a kind, an id or a name; `until` is exclusive;
    `search` is a text within the actor, the action, or the object's id or name.
    """
    query = select(AuditEntry).order_by(AuditEntry.id.desc())
    if actor:
        query = query.where(AuditEntry.actor == actor)
    if action and action.endswith(".*"):
        query = query.where(AuditEntry.action.startswith(action.removesuffix("*"), autoescape=True))
    elif action:
        query = query.where(AuditEntry.action == action)
    if kind:
        query = query.where(AuditEntry.object_kind == kind)
    if about:
        query = query.where(
            or_(AuditEntry.object_kind == about, AuditEntry.object_id == about, AuditEntry.object_name == about)
        )
    if address:
        query = query.where(AuditEntry.address == address)
    if since:
        query = query.where(AuditEntry.at >= since)
    if until:
        query = query.where(AuditEntry.at < until)
    if search:
        query = query.where(
            contains(search, AuditEntry.actor, AuditEntry.action, AuditEntry.object_id, AuditEntry.object_name)
        )
    return query


def entry(id: str) -> AuditEntry:
    """The entry with this id. Raises `NotFound`."""
    found = db.session.get(AuditEntry, id)
    if found is None:
        raise NotFound("This audit entry does not exist.")
    return found


def history(kind: str, id: str, *, limit: int, actions: Collection[str] | None = None) -> list[AuditEntry]:
    """The newest `limit` entries about one object, newest first; only those of `actions` if given."""
    found = entries().where(AuditEntry.object_kind == kind, AuditEntry.object_id == id).limit(limit)
    return list(db.session.scalars(found if actions is None else found.where(AuditEntry.action.in_(actions))))


def trail(person: Person) -> Select[AuditEntry]:
    """A query of what a person did and of changes to their account, newest first."""
    return (
        select(AuditEntry)
        .where(
            or_(
                AuditEntry.actor == person.username,
                (AuditEntry.object_kind == "person") & (AuditEntry.object_id == person.id),
            )
        )
        .order_by(AuditEntry.id.desc())
    )
