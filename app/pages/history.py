"""The history of a key, a team or a budget: one line for each audit entry, with the same words on every page."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from app.domain import fields
from app.domain.audit import AuditEntry
from app.domain.keys import KeyFields
from app.domain.teams import TeamFields
from app.pages.budgets import ACTIONS

# `{person}` is the person the action concerns, `{role}` their new role.
ACTION_TITLES = {
    "key.create": "Key created",
    "key.update": "Key changed",
    "key.rotate": "Key rotated",
    "key.end_secret": "Old secret revoked",
    "key.pause": "Key paused",
    "key.resume": "Key resumed",
    "key.revoke": "Key revoked",
    "team.create": "Team created",
    "team.update": "Team changed",
    "team.member": "{person} became {role}",
    "team.leave": "{person} is no longer a member",
    "team.invite": "Invitation sent to {person}",
    "team.invitation.accepted": "{person} accepted the invitation",
    "team.invitation.declined": "{person} declined the invitation",
    "team.invitation.withdrawn": "Invitation to {person} withdrawn",
    "budget.set": "Budget set",
    "budget.clear": "Budget removed",
    "budget.credit": "Credit given",
    "budget.request": "Increase requested",
    "budget.request.withdraw": "Request for an increase withdrawn",
    "budget.request.grant": "Increase granted",
    "budget.request.deny": "Increase denied",
}
LABELS = {
    **fields.words(TeamFields),
    **fields.words(KeyFields),
    "description": "description",
    "expires_at": "expires",
    "timezone": "time zone",
    "thresholds": "alerts at",
    "action_percent": "action at",
    "lasting": "each period",
    "overlap_s": "the old secret works for",
}
ROLES = {"owner": "an owner", "member": "a member"}
EMPTY: tuple[Any, ...] = (None, "", [])
EMPTY_WORDS = {"models": "all", "expires_at": "never"}  # "none" for any other field


class HistoryLine(NamedTuple):
    """One action: its title, time and actor, and what it changed and why."""

    title: str
    at: datetime
    by: str
    text: str


def history_lines(entries: Iterable[AuditEntry]) -> list[HistoryLine]:
    """Returns these entries in words, in the same order."""
    return [HistoryLine(_title(entry), entry.at, entry.actor, _text(entry)) for entry in entries]


def _title(entry: AuditEntry) -> str:
    role = (entry.detail.get("after") or {}).get("role", "")
    title = ACTION_TITLES.get(entry.action, entry.action)
    return title.format(person=entry.on_behalf_of or entry.actor, role=ROLES.get(role, role))


def _text(entry: AuditEntry) -> str:
    changes = "; ".join(_changes(entry))
    return ". ".join(part for part in (changes, entry.detail.get("reason")) if part)


def _changes(entry: AuditEntry) -> Iterable[str]:
    """What an action changed, one text per field: "limit: 5 → 8". For something new, only the fields that are not
    usual."""
    before, after = entry.detail.get("before") or {}, entry.detail.get("after") or {}
    created = entry.action.endswith(".create")
    if entry.action == "budget.clear":
        before, after = {}, {name: before.get(name) for name in ("limit", "period")}
    for name, value in after.items():
        old = before.get(name)
        in_title = name == "role" and entry.action == "team.member"
        usual = created and (name == "name" or value == "free")
        if in_title or usual or (value in EMPTY and old in EMPTY):
            continue
        was = old not in EMPTY or (name in before and name in EMPTY_WORDS)
        label = LABELS.get(name, name)
        yield (
            f"{label}: {_in_words(name, old)} → {_in_words(name, value)}"
            if was
            else f"{label}: {_in_words(name, value)}"
        )


def _in_words(name: str, value: Any) -> str:
    if value in EMPTY:
        return EMPTY_WORDS.get(name, "none")
    match name:
        case "expires_at":
            at = datetime.fromisoformat(value)
            return f"{at.day} {at:%b %Y, %H:%M} UTC"
        case "overlap_s":
            return _duration(int(value))
        case "thresholds":
            return ", ".join(f"{percent}%" for percent in value)
        case "action_percent":
            return f"{value}%"
        case "action":
            return ACTIONS.get(str(value), str(value)).lower()
        case "lasting":
            return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _duration(seconds: int) -> str:
    """Returns a number of seconds in its largest whole unit."""
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            number = seconds // size
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{seconds} seconds" if seconds else "no time"
