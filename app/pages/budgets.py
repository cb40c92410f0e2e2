"""Budgets for pages: a scope with its name and live figures, its state, and its history. The portal and the admins'
pages show the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from app.domain import audit, budgets, payers
from app.domain.audit import AuditEntry
from app.domain.payers import Payer
from app.domain.person import Person
from app.metering import money

NEAR = 80  # percent of the limit from which a budget counts as near it
KINDS = {
    "organisation": "Organisation",
    "team": "Team",
    "member": "Member’s cap",
    "user": "Person",
    "subscription": "Subscription",
    "key": "Key",
}
PERIODS = {"day": "a day", "week": "a week", "month": "a month", "total": "in total"}
ACTIONS = {"notify": "Tell only", "refuse": "Refuse new work", "suspend": "Pause the key"}
STATES = {"ok": "Within its limit", "near": "Near its limit", "exhausted": "Used up"}

PUBLIC_ACTIONS = ("budget.set", "budget.clear")
ALL_ACTIONS = (
    *PUBLIC_ACTIONS, "budget.credit", "budget.request", "budget.request.withdraw", "budget.request.grant",
    "budget.request.deny", "key.pause", "key.resume",
)  # fmt: skip


class Row(NamedTuple):
    """One scope of a list. `state` is one of `STATES`, "unknown" while the live counters cannot be read, or "none"
    without a limit."""

    payer: Payer
    standing: budgets.Standing
    state: str

    @property
    def share(self) -> float:
        """Spent plus reserved, as a share of the enforced limit; -1 without a limit or while the live counters cannot
        be read."""
        if self.standing.limit_nano is None or self.standing.spent_nano is None:
            return -1.0
        used = self.standing.spent_nano + (self.standing.reserved_nano or 0)
        return used / self.standing.limit_nano if self.standing.limit_nano else float("inf")


def rows(scopes: Sequence[Payer], person: Person | None = None) -> list[Row]:
    """Returns scopes with their figures, read in one query and one trip to Redis. With `person`, only the figures that
    this person may see."""
    smallest = payers.smallest_call_nano() if scopes else 0
    standings = budgets.standings([payer.scope for payer in scopes])
    return [
        Row(payer, standing.seen_by(person) if person else standing, _state(standing, smallest))
        for payer, standing in zip(scopes, standings, strict=True)
    ]


def _state(standing: budgets.Standing, smallest_nano: int) -> str:
    if standing.limit_nano is None:
        return "none"
    if standing.spent_nano is None or standing.remaining_nano is None:
        return "unknown"
    if standing.remaining_nano < smallest_nano:
        return "exhausted"
    used = standing.spent_nano + (standing.reserved_nano or 0)
    return "near" if used * 100 >= NEAR * standing.limit_nano else "ok"


def named_standings(scopes: Sequence[tuple[str, str, str]]) -> list[tuple[str, budgets.Standing]]:
    """Returns the standings of scopes, each with its name. A scope is its kind, id and name."""
    standings = budgets.standings([(kind, id) for kind, id, _ in scopes])
    return [(name, standing) for (_, _, name), standing in zip(scopes, standings, strict=True)]


def history(payer: Payer, *, whole: bool, limit: int = 30) -> list[AuditEntry]:
    """The history of a scope's budget, newest first. Without `whole` it leaves out the requests of others, their
    reasons and what they were granted."""
    return audit.history(payer.kind, payer.id, limit=limit, actions=ALL_ACTIONS if whole else PUBLIC_ACTIONS)


def exported(row: Row) -> dict[str, Any]:
    """One row of the export."""
    standing = row.standing
    return {
        "scope": row.payer.kind,
        "id": row.payer.public_id,
        "name": row.payer.name,
        "limit": money.optional_text(standing.whole_nano),
        "enforced_limit": money.optional_text(standing.limit_nano),
        "spent": money.optional_text(standing.spent_nano),
        "reserved": money.optional_text(standing.reserved_nano),
        "remaining": money.optional_text(standing.remaining_nano),
        "forecast": money.optional_text(standing.forecast_nano),
        "period": standing.period,
        "timezone": standing.timezone,
        "resets_at": standing.resets_at,
        "state": row.state,
    }


def _column(name: str) -> Any:
    return lambda row: exported(row)[name]


EXPORTED = {
    name: _column(name)
    for name in (
        "scope", "id", "name", "limit", "enforced_limit", "spent", "reserved", "remaining", "forecast", "period", "timezone",
        "resets_at", "state",
    )
}  # fmt: skip
