"""A person goes, a member leaves, a team ends, and with them all that was theirs: keys, subscriptions, budgets, sessions;
a provider goes when nothing needs it.

It stands above the nouns it ends, so that none of them has to know the others. The books keep what was used.
"""

from __future__ import annotations

from app.domain import budgets, catalog, identity, keys, providers, sessions, subscriptions, teams, tokens
from app.domain.errors import Conflict
from app.domain.person import Person
from app.domain.providers import Provider
from app.domain.teams import Team
from app.extensions import db


def delete(person: Person, *, by: Person | None) -> None:
    """Removes a person with everything that was theirs. Raises `Conflict` for the last admin, or the last owner of a
    team that has other members."""
    id = person.id
    for membership in teams.memberships_of(person):
        teams.let_go(membership, by=by)
    tokens.forget(person)
    keys.forget(person)
    subscriptions.forget(person)
    budgets.forget("user", id)
    identity.remove(person, by=by)
    sessions.end_all(id)  # last: they are in Redis, which knows no way back when the rest is refused


def leave(team: Team, person: Person, *, by: Person) -> None:
    """Takes a member out of a team; the team's keys that they made are revoked, and an owner stands for the
    subscriptions that they asked for. Raises as `teams.remove_member`."""
    for key in db.session.scalars(keys.of_team(team, by=person)):
        keys.revoke(key, by=by)
    subscriptions.hand_over(person, team=team)
    teams.remove_member(team, person, by=by)


def dissolve(team: Team, *, by: Person) -> None:
    """Removes a team: its keys are revoked, its subscriptions cancelled; what it used stays in the books."""
    for key in db.session.scalars(keys.of_team(team)):
        keys.revoke(key, by=by)
    for found in db.session.scalars(subscriptions.of_team(team)):
        if found.is_live:
            subscriptions.cancel(found, by=by, reason=f"The team {team.name} is removed.")
        budgets.forget("subscription", found.id)
    teams.remove(team, by=by)


def withdraw(provider: Provider, *, by: Person | None) -> None:
    """Removes a provider; raises `Conflict` while deployments use it."""
    used = sorted({one.model.name for one in catalog.deployments_of(provider)})
    if used:
        few = ", ".join(used[:3]) + (f" and {len(used) - 3} more" if len(used) > 3 else "")
        raise Conflict(f"{provider.name} serves {few}. Take it out of these models first.")
    providers.remove(provider, by=by)
