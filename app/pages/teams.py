"""Teams arranged for lists, a person's own and the admins' over all of them."""

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
        return money.optional_text(getattr(told.standings[team.id], name)) if team.id in told.standings else None

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
