"""Your own usage: the totals of a period compared with the one before, over time and by model or key, and your
budgets."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, Response, request

from app.blueprints.portal.person import me
from app.domain import budgets, payers
from app.domain.payers import Held
from app.domain.person import Person
from app.metering.scopes import member_id
from app.pages import usage_routes
from app.pages.budgets import named_standings
from app.web.request_cache import role_in

bp = Blueprint("usage", __name__)


@bp.get("/usage")
def index() -> Response:
    person = me()
    holdings = [held for held in payers.held_by(person) if held.status == "active"]
    return usage_routes.usage(
        person,
        usage_routes.PORTAL,
        "portal/usage/index.html",
        "portal/usage/_usage.html",
        budgets=_budgets(person, holdings),
        has_key=any(held.kind == "key" for held in holdings),
    )


def _budgets(person: Person, holdings: Sequence[Held]) -> list[tuple[str, budgets.Standing]]:
    """Every budget that limits this person's own spending, with its name: their own first, even without a limit. If the
    page is about a team: the team's budget, and the person's share of it."""
    team = request.args.get("team", "")
    if role_in(person, team):
        scopes = [
            ("team", team, "The team’s spending"),
            ("member", member_id(team, person.id), "Your share of it"),
        ]
        return named_standings(scopes)
    scopes = [("user", person.id, "All your personal spending")]
    for wanted_kind, word in (("subscription", "Model"), ("key", "Key")):
        scopes += [(wanted_kind, held.id, f"{word} {held.name}") for held in holdings if held.kind == wanted_kind]
    return [
        (name, standing)
        for name, standing in named_standings(scopes)
        if standing.kind == "user" or standing.limit_nano is not None
    ]
