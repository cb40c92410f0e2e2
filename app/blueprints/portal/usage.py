"""What one has used: the sums of a span beside the one before it, by time and model or key, against one's budgets."""

from __future__ import annotations

from flask import Blueprint, Response, request

from app.blueprints.portal.person import me
from app.domain import budgets, keys, subscriptions, teams
from app.domain.person import Person
from app.extensions import db
from app.web import usage_pages


def open_on(door: Blueprint) -> None:
    door.add_url_rule("/usage", "usage", index)


def index() -> Response:
    person = me()
    return usage_pages.usage(
        person,
        usage_pages.PORTAL,
        "portal/usage/index.html",
        "portal/usage/_usage.html",
        budgets=_budgets(person),
        has_key=bool(db.session.scalar(keys.listed(person, status="active").limit(1))),
    )


def _budgets(person: Person) -> list[tuple[str, budgets.Standing]]:
    """Everything that bounds this person's own spending, with its name: one's own budget first, even without limit.
    For a team that is asked for, the team's budget and one's share of it."""
    team = request.args.get("team", "")
    if teams.role_in(person, team):
        scopes = [
            ("team", team, "The team’s spending"),
            ("member", teams.scope_of(team, person.id), "Your share of it"),
        ]
        return [
            (name, standing)
            for (_, _, name), standing in zip(
                scopes, budgets.standings([(kind, id) for kind, id, _ in scopes]), strict=True
            )
        ]
    scopes = [("user", person.id, "All your personal spending")]
    scopes += [
        ("subscription", one.id, f"Model {one.model_name}")
        for one in db.session.scalars(subscriptions.of(person, status="active"))
    ]
    scopes += [("key", key.id, f"Key {key.name}") for key in db.session.scalars(keys.listed(person, status="active"))]
    standings = budgets.standings([(kind, id) for kind, id, _ in scopes])
    return [
        (name, standing)
        for (kind, _, name), standing in zip(scopes, standings, strict=True)
        if kind == "user" or standing.limit_nano is not None
    ]
