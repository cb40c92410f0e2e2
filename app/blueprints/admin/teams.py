"""All teams, for admins: who owns them, what they may spend and did; each leads to its own page."""

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
        linked=is_served("portal.teams.detail"),  # that door may be closed here
    )


def _owners(found: list[Team]) -> dict[str, list[str]]:
    """The usernames of the teams' owners, by the team's id."""
    owners: dict[str, list[str]] = {}
    for one in db.session.scalars(teams.members_of(*found).where(teams.Membership.role == "owner")):
        owners.setdefault(one.team_id, []).append(one.person.username)
    return owners


def _export_columns(found: list[Team]) -> dict[str, Any]:
    owners = _owners(found)
    columns = export_columns(figures(me(), [team.id for team in found]), {})
    columns["owners"] = lambda team: owners.get(team.id, [])
    columns["rpm"] = lambda team: team.rpm
    columns["tpm"] = lambda team: team.tpm
    return {name: show for name, show in columns.items() if name != "my_role"}
