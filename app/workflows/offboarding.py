"""Deletes a person or team, or removes a member, with everything that they own: keys, subscriptions, budgets, sessions. It
also deletes providers that nothing uses.

It is above the nouns that it deletes, so that none of them imports the others. The ledger keeps the usage.
"""

from __future__ import annotations

from app.domain import (
    budgets,
    catalog,
    credentials,
    identities,
    identity,
    keys,
    providers,
    sessions,
    subscriptions,
    teams,
    tokens,
)
from app.domain.errors import Conflict
from app.domain.person import Person
from app.domain.providers import Provider
from app.domain.teams import Team
from app.extensions import db


def delete(person: Person, *, by: Person | None) -> None:
    """Delete a person with everything that they own. Raises `Conflict` for the last admin, or the last owner of a team that
    has other members."""
    id = person.id
    for membership in teams.memberships_of(person):
        teams.let_go(membership, by=by)
    tokens.forget(person)
    identities.forget(person)
    credentials.forget(person)
    keys.forget(person)
    subscriptions.forget(person)
    budgets.forget("user", id)
    identity.remove(person, by=by)
    sessions.end_all(id)  # last: sessions are in Redis, which can't roll back if the rest fails


def leave(team: Team, person: Person, *, by: Person | None, ownerless: bool = False) -> None:
    """Remove a member from a team: the team's keys that they created are revoked, and the subscriptions that they requested
    go to an owner. Raises as `teams.remove_member`."""
    for key in db.session.scalars(keys.of_team(team, by=person)):
        keys.revoke(key, by=by)
    subscriptions.hand_over(person, team=team)
    teams.remove_member(team, person, by=by, ownerless=ownerless)


def dissolve(team: Team, *, by: Person | None) -> None:
    """Delete a team: its keys are revoked and its subscriptions cancelled. The ledger keeps its usage."""
    for key in db.session.scalars(keys.of_team(team)):
        keys.revoke(key, by=by)
    for found in db.session.scalars(subscriptions.of_team(team)):
        if found.is_live:
            subscriptions.cancel(found, by=by, reason=f"The team {team.name} was deleted.")
        budgets.forget("subscription", found.id)
    teams.remove(team, by=by)


def withdraw(provider: Provider, *, by: Person | None) -> None:
    """Delete a provider. Raises `Conflict` while deployments use it."""
    used = sorted({one.model.name for one in catalog.deployments_of(provider)})
    if used:
        few = ", ".join(used[:3]) + (f" and {len(used) - 3} more" if len(used) > 3 else "")
        raise Conflict(f"{provider.name} serves {few}. Remove it from these models first.")
    for credential in credentials.of_provider(provider):
        credentials.delete(credential, by=by)
    providers.remove(provider, by=by)
