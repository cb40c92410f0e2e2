"""The signed-in person, with their type: this door serves nobody else."""

from __future__ import annotations

from typing import cast

from flask_login import current_user

from app.domain import teams
from app.domain.errors import NotFound
from app.domain.person import Person
from app.domain.teams import Team


def me() -> Person:
    """Returns the person who made this request."""
    return cast("Person", current_user._get_current_object())


def my_team(id: str | None) -> Team | None:
    """Returns the person's own team with this id; None without an id. Raises `NotFound` for other teams, even for
    admins."""
    if not id:
        return None
    team = teams.get_visible(me(), id)
    if teams.role_in(me(), id) is None:
        raise NotFound("You are not in this team.")
    return team
