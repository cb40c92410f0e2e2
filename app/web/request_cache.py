"""What is asked once for a request, mostly of the database, however many parts of its page tell of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import request
from sqlalchemy import exists, select

from app.domain import identity, teams
from app.domain.catalog import Model
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.teams import Membership, Team
from app.extensions import db

T = TypeVar("T")


def once(name: str, ask: Callable[[], T]) -> T:
    """What `ask` answers, or answered before in this request."""
    known: dict[str, T] = request.environ.setdefault("portico.asked", {})
    if name not in known:
        known[name] = ask()
    return known[name]


def whoever(id: str) -> Person | None:
    """The person of that id. For a request that only reads their memberships come along, as most pages tell of teams;
    one that writes asks for them when it has written."""
    if request.method not in ("GET", "HEAD"):
        return identity.by_id(id)
    person, found = teams.person_and_memberships(id)
    if person is not None:
        once(_memberships_of(person), lambda: found)
    return person


def memberships(person: Person) -> list[Membership]:
    """A person's memberships, by the team's name."""
    return once(_memberships_of(person), lambda: teams.memberships_of(person))


def _memberships_of(person: Person) -> str:
    return f"memberships of {person.id}"


def reach_team(person: Person, id: str) -> Team:
    """The team of that id, if a person can see it; raises `NotFound`."""
    return next((one.team for one in memberships(person) if one.team_id == id), None) or teams.get_visible(person, id)


def owned_teams(person: Person) -> tuple[str, ...]:
    """The ids of the teams that a person owns."""
    return tuple(one.team_id for one in memberships(person) if one.role == "owner")


def role_in(person: Person, team_id: str | None) -> str | None:
    """A person's role in a team; None when they are not in it."""
    return next((one.role for one in memberships(person) if one.team_id == team_id), None)


def abundant(number: int) -> set[str]:
    """Of what there is more than that: of keys (revoked ones too), users, models."""

    def ask() -> set[str]:
        ids = {"key": ApiKey.id, "user": Person.id, "model": Model.id}
        more = (exists(select(id).offset(number)) for id in ids.values())
        return {name for name, found in zip(ids, db.session.execute(select(*more)).one(), strict=True) if found}

    return once(f"more than {number}", ask)
