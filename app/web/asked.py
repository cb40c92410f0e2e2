"""What is asked of the database once for a request, however many parts of its page tell of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import request

from app.domain import teams
from app.domain.person import Person
from app.domain.teams import Membership

T = TypeVar("T")


def once(name: str, ask: Callable[[], T]) -> T:
    """What `ask` answers, or answered before in this request."""
    known: dict[str, T] = request.environ.setdefault("portico.asked", {})
    if name not in known:
        known[name] = ask()
    return known[name]


def memberships(person: Person) -> list[Membership]:
    """The memberships of who makes this request, by the team's name."""
    return once("memberships", lambda: teams.of(person))


def owned_teams(person: Person) -> tuple[str, ...]:
    """The ids of the teams that they own."""
    return tuple(one.team_id for one in memberships(person) if one.role == "owner")
