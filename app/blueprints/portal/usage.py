"""What one has used: the sums of a span beside the one before it, by time and model or key, against one's budgets."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, Response, request

from app.blueprints.portal.person import me
from app.domain import budgets, keys, subscriptions, teams
from app.domain.person import Person
from app.extensions import db
from app.web import usage_pages
from app.web.asked import role_in


def open_on(door: Blueprint) -> None:
    door.add_url_rule("/usage", "usage", index)


def index() -> Response:
    person = me()
    active = keys.listed(person, status="active").with_only_columns(keys.ApiKey.id, keys.ApiKey.name)
    mine = [(id, name) for id, name in db.session.execute(active)]
    return usage_pages.usage(
        person,
        usage_pages.PORTAL,
        "portal/usage/index.html",
        "portal/usage/_usage.html",
        budgets=_budgets(person, mine),
        has_key=bool(mine),
    )


def _budgets(person: Person, own_keys: Sequence[tuple[str, str]]) -> list[tuple[str, budgets.Standing]]:
    """Everything that bounds this person's own spending, with its name: one's own budget first, even without limit.
    For a team that is asked for, the team's budget and one's share of it."""
    team = request.args.get("team", "")
    if role_in(person, team):
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
    one = subscriptions.Subscription
    active = subscriptions.of(person, status="active").with_only_columns(one.id, one.model_name)
    scopes += [("subscription", id, f"Model {model}") for id, model in db.session.execute(active)]
    scopes += [("key", id, f"Key {name}") for id, name in own_keys]
    standings = budgets.standings([(kind, id) for kind, id, _ in scopes])
    return [
        (name, standing)
        for (kind, _, name), standing in zip(scopes, standings, strict=True)
        if kind == "user" or standing.limit_nano is not None
    ]
