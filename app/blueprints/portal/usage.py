"""What one has used: the sums of a span beside the one before it, by time and model or key, against one's budgets."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, Response, request

from app.blueprints.portal.person import me
from app.domain import budgets, payers
from app.domain.payers import Held
from app.domain.person import Person
from app.metering.scopes import member_id
from app.pages import usage_routes
from app.pages.budgets import named
from app.web.request_cache import role_in

bp = Blueprint("usage", __name__)


@bp.get("/usage")
def index() -> Response:
    person = me()
    held = [one for one in payers.held_by(person) if one.status == "active"]
    return usage_routes.usage(
        person,
        usage_routes.PORTAL,
        "portal/usage/index.html",
        "portal/usage/_usage.html",
        budgets=_budgets(person, held),
        has_key=any(one.kind == "key" for one in held),
    )


def _budgets(person: Person, held: Sequence[Held]) -> list[tuple[str, budgets.Standing]]:
    """Everything that bounds this person's own spending, with its name: one's own budget first, even without limit.
    For a team that is asked for, the team's budget and one's share of it."""
    team = request.args.get("team", "")
    if role_in(person, team):
        scopes = [
            ("team", team, "The team’s spending"),
            ("member", member_id(team, person.id), "Your share of it"),
        ]
        return named(scopes)
    scopes = [("user", person.id, "All your personal spending")]
    for wanted, word in (("subscription", "Model"), ("key", "Key")):
        scopes += [(wanted, one.id, f"{word} {one.name}") for one in held if one.kind == wanted]
    return [
        (name, standing)
        for name, standing in named(scopes)
        if standing.kind == "user" or standing.limit_nano is not None
    ]
