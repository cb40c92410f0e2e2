"""A team's history put into words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from app.domain.audit import AuditEntry

ACTS = {
    "team.create": "Team made",
    "team.update": "Settings changed",
    "team.member": "{} became {role}",
    "team.leave": "{} is no longer a member",
    "team.invite": "{} was invited",
    "team.invitation.accepted": "{} accepted the invitation",
    "team.invitation.declined": "{} declined the invitation",
    "team.invitation.withdrawn": "Invitation of {} withdrawn",
    "budget.set": "Budget set",
    "budget.clear": "Budget taken away",
}
FIELDS = {
    "name": "name",
    "description": "description",
    "rpm": "requests a minute",
    "tpm": "tokens a minute",
    "limit": "limit",
    "period": "period",
    "timezone": "time zone",
}


class Step(NamedTuple):
    """One act of a team's history: what it was, and what it changed."""

    title: str
    at: datetime
    by: str
    text: str


def story(entries: Iterable[AuditEntry]) -> list[Step]:
    """A team's history in words, in the order given."""
    return [Step(_title(one), one.at, one.actor, _changes(one)) for one in entries]


def _title(entry: AuditEntry) -> str:
    role = (entry.detail.get("after") or {}).get("role", "a member")
    words = ACTS.get(entry.action, entry.action)
    return words.format(entry.on_behalf_of or entry.actor, role=f"an {role}" if role == "owner" else f"a {role}")


def _changes(entry: AuditEntry) -> str:
    if entry.action not in ("team.update", "budget.set", "budget.clear"):
        return str(entry.detail.get("reason") or "")
    before, after = entry.detail.get("before") or {}, entry.detail.get("after") or {}
    parts = [
        f"{FIELDS[name]}: {_spelled(before[name])} → {_spelled(after.get(name))}"
        if before.get(name) not in (None, "")
        else f"{FIELDS[name]}: {_spelled(after.get(name))}"
        for name in FIELDS
        if name in after or name in before
    ]
    return "; ".join(parts)


def _spelled(value: Any) -> str:
    return "none" if value in (None, "") else str(value)
