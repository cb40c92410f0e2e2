"""Teams arranged for lists, a person's own and the admins' over all of them; and a team's history put into words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func

from app.domain import budgets, subscriptions, teams
from app.domain.audit import AuditEntry
from app.domain.person import Person
from app.domain.teams import Team
from app.metering import money
from app.metering.periods import window_of
from app.reports import usage as usage_reports
from app.reports.planner import TeamReader
from app.reports.usage import Filters

MOST_TEAMS = 1_000_000
COLUMNS = {"name": func.lower(Team.name), "members": teams.member_count(), "created": Team.created_at}


class Figures(NamedTuple):
    """What lists tell beside the teams themselves, by the team's id; who is missing has none."""

    members: dict[str, int]
    models: dict[str, int]
    spent_nano: dict[str, int]  # this month, UTC
    standings: dict[str, budgets.Standing]


def figures(person: Person, ids: list[str]) -> Figures:
    """The figures of some teams, read for all of them at once. Their sums are for everybody who sees the teams."""
    books = TeamReader(person.id, person.sees_everything, tuple(ids))
    spent = usage_reports.by(books, "team_id", filters=this_month(), limit=MOST_TEAMS, names=ids) if ids else []
    return Figures(
        members=teams.counts(ids),
        models=subscriptions.counts_of_teams(ids),
        spent_nano={share.name: share.cost_nano for share in spent},
        standings={one.id: one for one in budgets.standings([("team", id) for id in ids])},
    )


def this_month(team_id: str | None = None) -> Filters:
    """Since the first of the month, UTC."""
    return Filters(team_id=team_id, from_ms=window_of("month|UTC", usage_reports.now_ms()).start_ms)


def export_columns(told: Figures, roles: dict[str, str]) -> dict[str, Any]:
    def amount(team: Team, name: str) -> str | None:
        nano = getattr(told.standings[team.id], name) if team.id in told.standings else None
        return None if nano is None else money.text(nano)

    return {
        "id": lambda team: team.id,
        "name": lambda team: team.name,
        "description": lambda team: team.description,
        "my_role": lambda team: roles.get(team.id),
        "members": lambda team: told.members.get(team.id, 0),
        "models": lambda team: told.models.get(team.id, 0),
        "budget": lambda team: amount(team, "limit_nano"),
        "spent": lambda team: amount(team, "spent_nano"),
        "resets_at": lambda team: told.standings[team.id].resets_at if team.id in told.standings else None,
        "spent_this_month": lambda team: money.text(told.spent_nano.get(team.id, 0)),
        "created_at": lambda team: team.created_at,
    }


# --- the history of a team in words ------------------------------------------------------------------------------------

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
    "budget.request": "More was asked for",
    "budget.request.withdraw": "Request for more taken back",
    "budget.request.grant": "More was granted",
    "budget.request.deny": "Request for more denied",
    "budget.credit": "Credit given",
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
        amount = (entry.detail.get("after") or {}).get("amount")
        return "; ".join(str(part) for part in (amount, entry.detail.get("reason")) if part)
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
