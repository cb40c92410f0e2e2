"""Audit entries in words, the same on every page: the history of a key, a team or a budget, and the audit log.

Secrets are masked, although no entry should have one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, NamedTuple

from app.domain import fields
from app.domain.audit import AuditEntry
from app.domain.catalog import ModelFields
from app.domain.keys import KeyFields
from app.domain.person import PersonFields
from app.domain.providers import ProviderFields
from app.domain.teams import TeamFields
from app.pages.budgets import ACTIONS
from app.runtime.logs import masked

# `{person}` is the person the action concerns, `{role}` their new role.
ACTION_TITLES = {
    "key.create": "Key created",
    "key.update": "Key changed",
    "key.rotate": "Key rotated",
    "key.end_secret": "Old secret revoked",
    "key.hand_over": "Key handed over",
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
    "announcement.put_up": "Announcement published",
    "announcement.take_down": "Announcement removed",
    "approval_rule.create": "Approval rule created",
    "approval_rule.update": "Approval rule changed",
    "approval_rule.move": "Approval rule moved",
    "approval_rule.delete": "Approval rule deleted",
    "audit.export": "Audit log exported",
    "config.activate": "Configuration activated",
    "config.create": "Configuration saved",
    "config.delete": "Saved configuration deleted",
    "config.export": "Configuration exported",
    "config.import": "Configuration imported",
    "config.update": "Saved configuration changed",
    "credential.create": "Provider credential stored",
    "credential.update": "Provider credential changed",
    "credential.delete": "Provider credential deleted",
    "dead_letter.post": "Failed usage event posted",
    "dead_letter.dismiss": "Failed usage event dismissed",
    "delivery.send_again": "Message sent again",
    "deployment.weigh": "Deployment’s weight changed",
    "drift.repair": "Counter repaired",
    "encryption_key.rotate": "Encryption key rotated",
    "endpoint.update": "Endpoint changed",
    "identity.link": "Single sign-on linked",
    "identity.unlink": "Single sign-on unlinked",
    "invitation.create": "Invitation created",
    "setting.update": "Setting changed",
    "invitation.accept": "Invitation accepted",
    "invitation.withdraw": "Invitation withdrawn",
    "job.retry": "Job retried",
    "job.remove": "Job removed",
    "key.refuse": "Key refused",
    "model.create": "Model created",
    "model.update": "Model changed",
    "model.delete": "Model deleted",
    "model.refuse": "Model refused",
    "person.create": "Person created",
    "person.update": "Person changed",
    "person.delete": "Person deleted",
    "person.change_password": "Password changed",
    "price.set": "Price set",
    "prompt.create": "Prompt created",
    "prompt.delete": "Prompt deleted",
    "prompt.update": "Prompt changed",
    "provider.create": "Provider created",
    "provider.update": "Provider changed",
    "provider.delete": "Provider deleted",
    "sign_in.accept": "Signed in",
    "sign_in.refuse": "Sign-in refused",
    "subscription.request": "Access requested",
    "subscription.approve": "Access approved",
    "subscription.deny": "Access denied",
    "subscription.cancel": "Subscription cancelled",
    "subscription.expire": "Subscription expired",
    "subscription.suspend": "Subscription suspended",
    "subscription.resume": "Subscription resumed",
    "subscription.restrict": "Subscription needs approval again",
    "subscription.renewal_request": "Renewal requested",
    "subscription.renew": "Subscription renewed",
    "subscription.deny_renewal": "Renewal denied",
    "team.delete": "Team deleted",
    "token.issue": "Access token created",
    "token.revoke": "Access token revoked",
    "token.reuse": "Access token used twice",
    "usage.export": "Usage exported",
    "sync.connect": "LiteLLM connected",
    "sync.disconnect": "LiteLLM disconnected",
    "sync.policy": "Synchronisation policies changed",
    "sync.apply": "Synchronisation plan applied",
    "sync.resume": "Synchronisation resumed",
    "sync.decide": "Synchronisation conflict decided",
    "sync.push": "Written to LiteLLM",
}
KINDS = {  # what an action can be about
    "announcement": "announcement",
    "approval_rule": "approval rule",
    "audit": "audit log",
    "config": "saved configuration",
    "counter": "counter",
    "credential": "provider credential",
    "dead_letter": "failed usage event",
    "delivery": "message",
    "encryption_key": "encryption key",
    "endpoint": "endpoint",
    "invitation": "invitation",
    "job": "job",
    "key": "API key",
    "member": "member of a team",
    "model": "model",
    "organisation": "organisation",
    "person": "person",
    "prompt": "prompt",
    "provider": "provider",
    "setting": "setting",
    "subscription": "subscription",
    "sync": "synchronisation",
    "team": "team",
    "token": "access token",
    "usage": "usage",
    "user": "person’s budget",
}
LABELS = {
    **fields.words(ModelFields),
    **fields.words(ProviderFields),
    **fields.words(PersonFields),
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
SHORTENED = re.compile(r"[\w-]{1,12}…[\w-]{1,4}", re.ASCII)  # a secret as people recognise it: "sk-ab…wxyz"
ROLES = {"owner": "an owner", "member": "a member"}
EMPTY: tuple[Any, ...] = (None, "", [])
EMPTY_WORDS = {"models": "all", "expires_at": "never"}  # "none" for any other field


class Difference(NamedTuple):
    """One value that an action changed, before and after, in words; None where there was no such value."""

    label: str
    before: str | None
    after: str | None


class HistoryLine(NamedTuple):
    """One action: its title, time and actor, and what it changed and why."""

    title: str
    at: datetime
    by: str
    text: str


def history_lines(entries: Iterable[AuditEntry]) -> list[HistoryLine]:
    """Returns these entries in words, in the same order."""
    return [HistoryLine(title_of(entry), entry.at, entry.actor, text_of(entry)) for entry in entries]


def differences(entry: AuditEntry) -> list[Difference]:
    """Returns every value that the entry has before or after the action."""
    before, after = _side(entry, "before"), _side(entry, "after")
    return [
        Difference(_label(name), *(_in_words(name, side[name]) if name in side else None for side in (before, after)))
        for name in dict.fromkeys((*before, *after))
    ]


def facts_of(entry: AuditEntry) -> dict[str, str]:
    """Returns what the entry tells besides the values before and after, and the reason, by name."""
    facts: dict[str, Any] = masked(entry.detail)
    return {name: _in_words(name, facts[name]) for name in facts if name not in ("before", "after", "reason")}


def title_of(entry: AuditEntry) -> str:
    role = _side(entry, "after").get("role", "")
    title = ACTION_TITLES.get(entry.action, entry.action)
    return title.format(person=entry.on_behalf_of or entry.actor, role=ROLES.get(str(role), role))


def text_of(entry: AuditEntry) -> str:
    """Returns what the action changed and why, in one line."""
    changes = "; ".join(_changes(entry))
    return ". ".join(part for part in (changes, reason_of(entry)) if part)


def reason_of(entry: AuditEntry) -> str:
    return str(masked(entry.detail.get("reason")) or "")


def _side(entry: AuditEntry, side: Literal["before", "after"]) -> dict[str, Any]:
    """The values before or after the action, with secrets masked."""
    return {name: _masked(name, value) for name, value in (entry.detail.get(side) or {}).items()}


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, str) and SHORTENED.fullmatch(value):
        return value
    (shown,) = masked({name: value}).values()
    return shown


def _changes(entry: AuditEntry) -> Iterable[str]:
    """What an action changed, one text per field: "limit: 5 → 8". For something new, only the fields that are not
    usual."""
    before, after = _side(entry, "before"), _side(entry, "after")
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
        label = _label(name)
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
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{_label(each)}: {_in_words(each, part)}" for each, part in value.items())
    return "; ".join(_in_words("", part) for part in value) if _holds_objects(value) else _joined(value)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(part, dict) for part in value)


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _duration(seconds: int) -> str:
    """Returns a number of seconds in its largest whole unit."""
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            number = seconds // size
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{seconds} seconds" if seconds else "no time"
