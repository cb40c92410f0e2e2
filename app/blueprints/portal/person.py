"""The person whose portal this is, by type: pages are served only to somebody who is signed in."""

from __future__ import annotations

from typing import cast

from flask_login import current_user

from app.domain import teams
from app.domain.errors import NotFound
from app.domain.person import Person
from app.domain.teams import Team


def me() -> Person:
    return cast("Person", current_user._get_current_object())


def my_team(id: str | None) -> Team | None:
    """The team of that id that one is in; none without an id. Nobody acts for other teams, admins neither."""
    if not id:
        return None
    team = teams.get_visible(me(), id)
    if teams.role_in(me(), id) is None:
        raise NotFound("You are not in this team.")
    return team
