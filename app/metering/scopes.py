"""Scopes: whose money a call spends, as the kind and the id that counters, budgets and the books name.

A member's part in a team is the one scope of two things; its id is the team's and the person's with a colon between.
This is the only module that joins and cuts such an id.
"""

from __future__ import annotations


def member_id(team_id: str, person_id: str) -> str:
    """The id of a member's scope in a team."""
    return f"{team_id}:{person_id}"


def team_and_person(kind: str, id: str) -> tuple[str | None, str | None]:
    """The ids of the team and of the person that a scope names; None for each that it does not."""
    match kind:
        case "team":
            return id, None
        case "user":
            return None, id
        case "member":
            team_id, _, person_id = id.partition(":")
            return team_id, person_id
    return None, None
