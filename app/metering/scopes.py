"""Scopes: whose money a call spends, as the kind and the id that counters, budgets and the books name.

A member's part in a team is the one scope of two things; its id is the team's and the person's with a colon between.
This is the only module that joins and cuts such an id.
"""

from __future__ import annotations

from typing import NamedTuple

from app import store
from app.directory import CallerRecord, ScopeKind


class ScopeRef(NamedTuple):
    """A scope of a chain. `shown` is its id in words people know, such as a username."""

    kind: ScopeKind
    id: str
    shown: str


def chain_of(caller: CallerRecord, subscription_id: str | None) -> tuple[ScopeRef, ...]:
    """Who pays for a call, innermost first.

    A personal key: key, subscription, owner, organisation. A team's: key, subscription, member, team, organisation.
    """
    scopes = []
    if caller.kind == "key":
        scopes.append(ScopeRef("key", caller.id, caller.id))
    if subscription_id is not None:
        scopes.append(ScopeRef("subscription", subscription_id, subscription_id))
    if caller.team_id is None:
        scopes.append(ScopeRef("user", caller.person_id, caller.username))
    else:
        team = caller.team or caller.team_id
        scopes.append(ScopeRef("member", member_id(caller.team_id, caller.person_id), f"{team}/{caller.username}"))
        scopes.append(ScopeRef("team", caller.team_id, team))
    scopes.append(ScopeRef("organisation", store.ORGANISATION, store.ORGANISATION))
    return tuple(scopes)


def address_of(caller: CallerRecord, scope: ScopeRef) -> str:
    """The scope of a caller's chain as the management API and the portal address its budget."""
    match scope.kind:
        case "user":
            return caller.username
        case "member":
            return f"{caller.team_id}:{caller.username}"
        case _:
            return scope.id


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
