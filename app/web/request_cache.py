"""Values that are computed once per request, mostly database reads, however many parts of the page need them."""

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


def cached(name: str, read: Callable[[], T]) -> T:
    """Returns the result of `read`, which runs only once per request for each `name`."""
    cache: dict[str, T] = request.environ.setdefault("portico.cache", {})
    if name not in cache:
        cache[name] = read()
    return cache[name]


def load_person(id: str) -> Person | None:
    """Returns the person with this id, or None.

    A request that only reads also loads their memberships in the same query, because most pages need them. A request
    that writes reads them itself after it has written.
    """
    if request.method not in ("GET", "HEAD"):
        return identity.by_id(id)
    person, loaded = teams.person_and_memberships(id)
    if person is not None:
        cached(_memberships_of(person), lambda: loaded)
    return person


def memberships(person: Person) -> list[Membership]:
    """Returns a person's memberships, sorted by team name."""
    return cached(_memberships_of(person), lambda: teams.memberships_of(person))


def _memberships_of(person: Person) -> str:
    return f"memberships of {person.id}"


def visible_team(person: Person, id: str) -> Team:
    """Returns the team with this id, if the person can see it. Raises `NotFound`."""
    theirs = next((membership.team for membership in memberships(person) if membership.team_id == id), None)
    return theirs or teams.get_visible(person, id)


def owned_teams(person: Person) -> tuple[str, ...]:
    """Returns the ids of the teams that a person owns."""
    return tuple(membership.team_id for membership in memberships(person) if membership.role == "owner")


def role_in(person: Person, team_id: str | None) -> str | None:
    """Returns a person's role in a team; None if they are not a member."""
    return next((membership.role for membership in memberships(person) if membership.team_id == team_id), None)


def more_than(number: int) -> set[str]:
    """Returns which of "key" (revoked ones included), "user" and "model" there are more than `number` of."""

    def read() -> set[str]:
        ids = {"key": ApiKey.id, "user": Person.id, "model": Model.id}
        queries = (exists(select(id).offset(number)) for id in ids.values())
        return {name for name, exceeds in zip(ids, db.session.execute(select(*queries)).one(), strict=True) if exceeds}

    return cached(f"more than {number}", read)
