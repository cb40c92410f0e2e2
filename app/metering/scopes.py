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


def chain_of(caller: CallerRecord, *subscription_ids: str) -> tuple[ScopeRef, ...]:
    """Who pays for a call, innermost first; with several subscriptions, who may pay for one.

    A personal key: key, subscription, owner, organisation. A team's: key, subscription, member, team, organisation. An
    access token: the same without a key.
    """
    scopes = []
    if caller.kind == "key":
        scopes.append(ScopeRef("key", caller.id, caller.id))
    for id in subscription_ids:
        scopes.append(ScopeRef("subscription", id, id))
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
            return member_id(str(caller.team_id), caller.username)
        case _:
            return scope.id


def member_id(team_id: str, person_id: str) -> str:
    """The id of a member's scope in a team; as people address it, with a username for the person's id."""
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
