"""Teams as a list: a person's own, and the admins' list of all teams."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import func

from app.domain import budgets, subscriptions, teams
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
    """The figures that a list shows for each team, by team id. A team without a figure is missing."""

    members: dict[str, int]
    models: dict[str, int]
    spent_nano: dict[str, int]  # this month, UTC
    standings: dict[str, budgets.Standing]


def figures(person: Person, ids: list[str]) -> Figures:
    """Returns the figures of some teams, read for all of them together. Everyone who sees a team may see its sums."""
    reader = TeamReader(person.id, person.sees_everything, tuple(ids))
    spent = usage_reports.by(reader, "team_id", filters=this_month(), limit=MOST_TEAMS, names=ids) if ids else []
    return Figures(
        members=teams.counts(ids),
        models=subscriptions.counts_of_teams(ids),
        spent_nano={share.name: share.cost_nano for share in spent},
        standings={standing.id: standing for standing in budgets.standings([("team", id) for id in ids])},
    )


def this_month(team_id: str | None = None) -> Filters:
    """A filter for usage since the first of the month, UTC."""
    return Filters(team_id=team_id, from_ms=window_of("month|UTC", usage_reports.now_ms()).start_ms)


def export_columns(figures: Figures, roles: dict[str, str]) -> dict[str, Any]:
    """The columns of the export. `roles` are the reader's roles, by team id."""

    def amount(team: Team, name: str) -> str | None:
        return money.optional_text(getattr(figures.standings[team.id], name)) if team.id in figures.standings else None

    return {
        "id": lambda team: team.id,
        "name": lambda team: team.name,
        "description": lambda team: team.description,
        "my_role": lambda team: roles.get(team.id),
        "members": lambda team: figures.members.get(team.id, 0),
        "models": lambda team: figures.models.get(team.id, 0),
        "budget": lambda team: amount(team, "limit_nano"),
        "spent": lambda team: amount(team, "spent_nano"),
        "resets_at": lambda team: figures.standings[team.id].resets_at if team.id in figures.standings else None,
        "spent_this_month": lambda team: money.text(figures.spent_nano.get(team.id, 0)),
        "created_at": lambda team: team.created_at,
    }
