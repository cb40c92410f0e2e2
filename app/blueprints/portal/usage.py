"""What one has used: the sums of a span beside the one before it, by time and model or key, against one's budgets."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.portal.person import me
from app.domain import budgets, keys, subscriptions
from app.domain.identity import Person
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
    """Everything that bounds this person's own spending, with its name: one's own budget first, even without limit."""
    scopes = [("user", person.id, "All your spending")]
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
