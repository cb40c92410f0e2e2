"""Accounts and teams as a directory wants them (SCIM): made, changed, deactivated and deleted, without anybody signing in.

Who is deactivated loses keys, tokens and sessions for good; the keys that they made for a team go on under somebody else of
it. Everything is written into the audit log as done by `scim`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from app.domain import identity, keys, names, sessions, teams, tokens
from app.domain.errors import Conflict, Invalid
from app.domain.person import Person
from app.domain.teams import Membership, Team
from app.extensions import db
from app.ledger.entries import UsageEntry
from app.workflows import offboarding

ACTOR = "scim"  # in the audit log, and as `Membership.given_by` names it
Resource = Mapping[str, Any]


def create_person(resource: Resource) -> Person:
    """Make an account that no password opens. Raises `Invalid`, or `Conflict` if its name or external id is taken."""
    _must_be_free(resource.get("externalId"), Person)
    person = identity.create(by=None, username=resource.get("userName") or "", password=None, email=_email_of(resource))
    _keep(person, resource)
    if resource.get("active") is False:
        deactivate(person)
    return person


def change_person(person: Person, resource: Resource) -> Person:
    """Make an account what `resource` says. Raises as `create_person`, and `Conflict` for the last admin."""
    if resource.get("externalId") != person.external_id:
        _must_be_free(resource.get("externalId"), Person)
    username = resource.get("userName") or ""
    if username != person.username:
        identity.rename(person, username, by=None)
    email = _email_of(resource)
    if email != person.email and (email or person.scim is not None):
        identity.update(person, by=None, email=email)
    _keep(person, resource)
    if resource.get("active") is False and not person.disabled:
        deactivate(person)
    elif resource.get("active") is True and person.disabled:
        identity.update(person, by=None, disabled=False)
    return person


def deactivate(person: Person) -> None:
    """Deactivate an account; its keys, tokens and sessions end for good. Raises `Conflict` for the last admin."""
    _hand_over_team_keys(person)
    identity.update(person, by=None, disabled=True)
    for key in db.session.scalars(keys.owned_by(person)):
        keys.revoke(key, by=None)
    tokens.revoke_all(person)
    sessions.end_all(person.id)


def delete_person(person: Person) -> None:
    """Delete an account; the ledger keeps its usage. Raises `Conflict` for the last admin."""
    _hand_over_team_keys(person)
    for membership in teams.memberships_of(person):
        heir = _heir(membership.team, person)
        if membership.role == "owner" and heir and teams.role_in(heir, membership.team_id) == "member":
            teams.put_member(membership.team, heir, by=None, role="owner")
    offboarding.delete(person, by=None)


def create_team(resource: Resource) -> Team:
    """Make a team without an owner; admins act for it. Raises `Invalid` or `Conflict`."""
    _must_be_free(resource.get("externalId"), Team)
    team = teams.create(by=None, name=resource.get("displayName") or "")
    team.external_id = resource.get("externalId")
    _set_members(team, resource)
    return team


def change_team(team: Team, resource: Resource) -> Team:
    """Make a team what `resource` says; without `members` they stay. Raises `Invalid` or `Conflict`."""
    if resource.get("externalId") != team.external_id:
        _must_be_free(resource.get("externalId"), Team)
        team.external_id = resource.get("externalId")
    if resource.get("displayName") != team.name:
        teams.update(team, by=None, name=resource.get("displayName") or "")
    if "members" in resource:
        _set_members(team, resource)
    return team


def delete_team(team: Team) -> None:
    """End the memberships that SCIM gave. The team stays if it has other members, keys or usage."""
    for membership in list(team.members):
        if membership.given_by == ACTOR:
            offboarding.leave(team, membership.person, by=None, ownerless=True)
    team.external_id = None
    used = select(UsageEntry.team_id).where(UsageEntry.team_id == team.id).limit(1)
    if not team.members and not db.session.scalar(keys.of_team(team).limit(1)) and not db.session.scalar(used):
        offboarding.dissolve(team, by=None)


def _set_members(team: Team, resource: Resource) -> None:
    wanted = {member["value"] for member in resource.get("members") or []}
    present = {membership.person_id: membership for membership in team.members}
    for id in wanted - present.keys():
        person = identity.by_id(id)
        if person is None:
            raise Invalid("A member is the id of a user.", "members")
        teams.put_member(team, person, by=None, given_by=ACTOR)
    for id in present.keys() - wanted:
        if present[id].role == "member" or present[id].given_by == ACTOR:
            offboarding.leave(team, present[id].person, by=None, ownerless=True)


def _hand_over_team_keys(person: Person) -> None:
    """Give the keys that somebody made for their teams to an owner of the team, else its oldest member, else an admin."""
    for key in db.session.scalars(keys.live_team_keys_of(person)):
        team = db.session.get(Team, key.team_id)
        heir = _heir(team, person) if team else None
        if team and heir:
            if teams.role_in(heir, team.id) is None:  # a team's key works for its members only
                teams.put_member(team, heir, by=None, role="owner")
            keys.hand_over(key, to=heir)


def _heir(team: Team, person: Person) -> Person | None:
    active = [one for one in team.members if one.person_id != person.id and not one.person.disabled]
    first = min(active, key=lambda one: (one.role != "owner", one.joined_at), default=None)
    if first is not None:
        return first.person
    admins = select(Person).where(Person.role == "admin", Person.disabled.is_(False), Person.id != person.id)
    return db.session.scalar(admins.order_by(Person.created_at).limit(1))


def _keep(person: Person, resource: Resource) -> None:
    person.external_id = resource.get("externalId")
    person.scim = {name: resource[name] for name in ("name", "displayName", "emails") if resource.get(name)}
    db.session.flush()


def _email_of(resource: Resource) -> str | None:
    """The address that notices go to: the primary one, else the one of work, else the first."""
    emails = [one for one in resource.get("emails") or [] if names.is_email(one["value"])]
    best = min(emails, key=lambda one: (not one.get("primary"), one.get("type") != "work"), default=None)
    return best["value"] if best else None


def _must_be_free(external_id: str | None, kind: type[Person] | type[Team]) -> None:
    if external_id and db.session.scalar(select(kind.id).where(kind.external_id == external_id)):
        raise Conflict("This externalId is taken.", "externalId")


def groups_of(people: list[Person]) -> dict[str, list[Membership]]:
    """The memberships of these people, by person id."""
    query = select(Membership).where(Membership.person_id.in_([person.id for person in people]))
    found: dict[str, list[Membership]] = {}
    for membership in db.session.scalars(query):
        found.setdefault(membership.person_id, []).append(membership)
    return found
