"""All teams, for admins: their owners, budgets and usage. Each links to its own page."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from app.blueprints.admin.person import me
from app.domain import teams
from app.domain.teams import Team
from app.extensions import db
from app.pages.teams import COLUMNS, export_columns, figures
from app.web import exports
from app.web.links import is_served
from app.web.lists import filters_from_request, list_page

bp = Blueprint("teams", __name__)


@bp.get("/admin/teams")
def index() -> Response:
    filters = filters_from_request()
    query = teams.all_(search=filters.search)
    return list_page(
        "admin/teams",
        query,
        COLUMNS,
        file=lambda file_format, rows: exports.answer(
            file_format, "teams", _export_columns(list(db.session.scalars(query))), rows
        ),
        page=lambda listing: {
            "figures": figures(me(), [team.id for team in listing.items]),
            "owners": _owners(listing.items),
        },
        search=filters.search,
        linked=is_served("portal.teams.detail"),  # this process may not serve that door
    )


def _owners(some_teams: list[Team]) -> dict[str, list[str]]:
    """Returns the usernames of the teams' owners, by team id."""
    owners: dict[str, list[str]] = {}
    for membership in db.session.scalars(teams.members_of(*some_teams).where(teams.Membership.role == "owner")):
        owners.setdefault(membership.team_id, []).append(membership.person.username)
    return owners


def _export_columns(all_teams: list[Team]) -> dict[str, Any]:
    owners = _owners(all_teams)
    columns = export_columns(figures(me(), [team.id for team in all_teams]), {})
    columns["owners"] = lambda team: owners.get(team.id, [])
    columns["rpm"] = lambda team: team.rpm
    columns["tpm"] = lambda team: team.tpm
    return {name: show for name, show in columns.items() if name != "my_role"}
