"""What a sign-in at the identity provider gives: which account, which role, which teams.

`plan` only looks; the page *What would this sign-in give?* shows it, and `admit` carries it out. The provider owns what it
gave (roles, if the settings map groups to them; memberships and groups) and takes it back at the next sign-in. The rest
belongs to people, and stays.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from sqlalchemy import func, select

from app import current
from app.clock import now
from app.domain import identities, identity, names, teams
from app.domain.errors import Conflict
from app.domain.identities import Identity
from app.domain.person import Person
from app.domain.teams import Membership, Team
from app.extensions import db
from app.oidc.provider import Profile
from app.workflows import offboarding

PROVIDER = "oidc"  # as `Membership.given_by` names it
Account = Literal["new", "linked", "must_link"]
_UNFIT = re.compile(r"[^A-Za-z0-9._@+-]+")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a sign-in gives. `person` is the account that is there already; `must_link` says that it must be proved first."""

    account: Account
    username: str
    role: str
    add: list[str]
    remove: list[Membership]
    person: Person | None
    identity: Identity | None

    @property
    def removed(self) -> list[str]:
        return [membership.team.name for membership in self.remove]


def plan(profile: Profile) -> Plan:
    """What this profile's sign-in would give now. It changes nothing."""
    found = identities.find(profile.issuer, profile.subject)
    person, account = _account_of(profile, found)
    wanted = _teams_of(profile)
    theirs = teams.memberships_of(person) if person and account == "linked" else []
    held = {membership.team.name.lower() for membership in theirs}
    return Plan(
        account=account,
        username=person.username if person else username_of(profile),
        role=_role_of(profile, person if account == "linked" else None),
        add=[name for name in wanted if name.lower() not in held],
        remove=[
            membership
            for membership in theirs
            if membership.given_by == PROVIDER and membership.team.name.lower() not in {name.lower() for name in wanted}
        ],
        person=person,
        identity=found,
    )


def admit(profile: Profile, *, linked_to: Person | None = None, as_new: bool = False) -> Person | None:
    """Sign in whom the provider names: create or find their account and give it what the provider owns. Returns None if an
    account must be linked first.

    `linked_to` is an account that its person has just proved to be theirs; `as_new` makes another one under another name.
    """
    if linked_to is not None:
        identities.link(linked_to, issuer=profile.issuer, subject=profile.subject, by=linked_to)
    present = plan(profile)
    person = present.person
    if present.account == "must_link" and as_new and may_be_new(profile, person):
        person = None
    elif present.account == "must_link":
        return None
    if person is None:
        person = identity.create(
            by=None,
            username=_free_username(present.username),
            password=None,
            email=_email_of(profile),
            role=present.role,
        )
    found = present.identity or identities.link(person, issuer=profile.issuer, subject=profile.subject, by=None)
    if person.disabled:
        return person
    _give(person, profile, present.role, found)
    _join(person, present)
    found.last_used_at = now()
    return person


def may_be_new(profile: Profile, person: Person | None) -> bool:
    """Whether a person whose name is taken can have another account: the taken one has another e-mail address."""
    return person is not None and (person.email or "").lower() != (profile.email or "").lower()


def username_of(profile: Profile) -> str:
    """The name that the provider suggests, with the characters that a username can have."""
    name = _UNFIT.sub("-", profile.username).lstrip("._@+-")[:64]
    return name or "user"


def _account_of(profile: Profile, found: Identity | None) -> tuple[Person | None, Account]:
    if found is not None:
        return found.person, "linked"
    name = username_of(profile)
    provisioned = _provisioned(profile, name)
    if provisioned is not None:
        return provisioned, "linked"
    taken = identity.find(name) or _with_email(profile.email)
    return (taken, "must_link") if taken else (None, "new")


def _provisioned(profile: Profile, name: str) -> Person | None:
    """The account that SCIM made for this person, unless another subject has it already. One with a password is a person's
    own, even if SCIM changed it since: that asks for the password."""
    made = select(Person).where(
        Person.scim.is_not(None),
        Person.password_hash.is_(None),
        ~select(Identity).where(Identity.person_id == Person.id).exists(),
    )
    found = db.session.scalar(made.where(Person.external_id == profile.subject))
    named = [name] + ([profile.email] if profile.email and profile.email_verified else [])
    for one in named if found is None else ():
        found = found or db.session.scalar(made.where(func.lower(Person.username) == one.lower()))
    return found


def _with_email(email: str | None) -> Person | None:
    if not email:
        return None
    same = select(Person).where(func.lower(Person.email) == email.lower()).order_by(Person.created_at).limit(1)
    return db.session.scalar(same)


def _role_of(profile: Profile, person: Person | None) -> str:
    settings, groups = current.config().oidc, set(profile.groups)
    if not settings.admin_groups and not settings.readonly_groups:
        return person.role if person else "user"
    if groups & set(settings.admin_groups) or (person and identity.is_last_admin(person)):
        return "admin"
    return "admin-readonly" if groups & set(settings.readonly_groups) else "user"


def _teams_of(profile: Profile) -> list[str]:
    """The teams that the groups stand for, each once."""
    mapped = current.config().oidc.team_groups
    return list({mapped[group].lower(): mapped[group] for group in profile.groups if group in mapped}.values())


def _email_of(profile: Profile) -> str | None:
    return profile.email if profile.email and profile.email_verified and names.is_email(profile.email) else None


def _free_username(name: str) -> str:
    """`name`, or with a number where it is taken."""
    number, free = 1, name
    while identity.find(free):
        number += 1
        free = f"{name[:59]}-{number}"
    return free


def _give(person: Person, profile: Profile, role: str, found: Identity) -> None:
    """Give the role and the groups; groups that the last sign-in gave and this one does not are taken away."""
    given = [group for group in profile.groups if names.GROUP.fullmatch(group)]
    own = [group for group in person.groups if group not in found.groups]
    groups = list(dict.fromkeys((*own, *given)))[: names.MOST_GROUPS]
    changes: dict[str, Any] = {}
    if groups != list(person.groups):
        changes["groups"] = groups
    if person.email is None and (email := _email_of(profile)):
        changes["email"] = email
    if role != person.role:
        changes["role"] = role
    if changes:
        identity.update(person, by=None, **changes)
    found.groups = [group for group in given if group in groups and group not in own]


def _join(person: Person, present: Plan) -> None:
    for name in present.add:
        team: Team = teams.called(name) or teams.create(by=None, name=name)
        if teams.role_in(person, team.id) is None:
            teams.put_member(team, person, by=None, given_by=PROVIDER)
    for membership in present.remove:
        try:
            offboarding.leave(membership.team, person, by=None)
        except Conflict:  # somebody made them the team's only owner since: they stay until there is another
            continue
