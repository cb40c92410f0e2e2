"""Teams: people who share keys, subscriptions and a budget; a person may be in several of them.

Owners manage their team: its members, their caps and its subscriptions. Members create the team's keys and request access
to models. The organisation is above all teams. If a person leaves, the team's keys that they created are revoked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta
from sqlalchemy import ColumnElement, ForeignKey, Index, Select, String, Text, and_, func, select
from sqlalchemy.orm import Mapped, contains_eager, lazyload, mapped_column, relationship

from app.clock import now
from app.domain import audit, budgets, fields, names, notices
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.person import LARGEST_RATE, Person, Rate
from app.extensions import Base, db
from app.gateway.labels import LONGEST_TAG, is_tag
from app.metering.scopes import member_id
from app.runtime.ids import new_id

Role = Literal["owner", "member"]
ROLES: tuple[Role, ...] = get_args(Role)

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

MOST_MEMBERS = 10_000


_NO_RATE = f"Enter a number from 1 to {LARGEST_RATE}, or leave this empty."
_RATE_HELP = "For all keys of the team together. Empty for no limit."


MOST_TAGS = 100  # that a list allows
TAGS_HELP = (
    "Words by which requests say what they are for, in the header x-portico-tags or in metadata.tags. Other tags are dropped. "
    "Separated by commas; empty allows any."
)


def checked_tags(words: Iterable[str]) -> list[str]:
    """A list of allowed tags, each once. Raises `Invalid`."""
    found = list(dict.fromkeys(word.strip() for word in words))
    if len(found) > MOST_TAGS or not all(map(is_tag, found)):
        raise Invalid(
            f"Use at most {MOST_TAGS} tags of letters, digits and . _ : = -, each at most {LONGEST_TAG} characters.",
            "tags",
        )
    return found


class TeamFields(msgspec.Struct, kw_only=True):
    """A team's editable fields. Each has a column in `Team`. Its numbers are limits; only admins can change them."""

    name: Annotated[
        str,
        Meta(
            max_length=names.LONGEST,
            title="Name",
            description=f"Each team has its own name. At most {names.LONGEST} characters.",
            extra={"needed": "Enter a name.", "read": names.checked},
        ),
    ]
    description: Annotated[
        str,
        Meta(
            max_length=2000,
            title="Purpose",
            description="Shown to all members. At most 2,000 characters.",
            extra={"lines": 3},
        ),
    ] = ""
    tags: Annotated[
        list[Annotated[str, Meta(max_length=LONGEST_TAG)]],
        Meta(max_length=MOST_TAGS, title="Allowed tags", description=TAGS_HELP, extra={"read": checked_tags}),
    ] = []
    rpm: Annotated[
        Rate | None, Meta(title="Requests per minute", description=_RATE_HELP, extra={"refusal": _NO_RATE})
    ] = None
    tpm: Annotated[
        Rate | None, Meta(title="Tokens per minute", description=_RATE_HELP, extra={"refusal": _NO_RATE})
    ] = None


class Team(Base):
    """A team. `rpm` and `tpm` limit all calls of its keys together; None means no limit."""

    __tablename__ = "team"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(Text, default="")
    tags: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    rpm: Mapped[int | None]
    tpm: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    external_id: Mapped[str | None] = mapped_column(
        String(255), index=True, unique=True
    )  # the name that a SCIM client gave

    members: Mapped[list[Membership]] = relationship(
        back_populates="team", cascade="all, delete-orphan", order_by="Membership.joined_at", lazy="select"
    )

    def summary(self) -> dict[str, Any]:
        return fields.told(TeamFields, self)


Index("uq_team_name", func.lower(Team.name), unique=True)


class Membership(Base):
    """A person's membership in a team. Their cap is the budget of the scope `member`, `<team id>:<person id>`."""

    __tablename__ = "membership"

    team_id: Mapped[str] = mapped_column(ForeignKey("team.id", ondelete="CASCADE"), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(8), default="member")
    joined_at: Mapped[datetime] = mapped_column(default=now)
    # Who gave it, and may take it back: "oidc" or "scim". None for people.
    given_by: Mapped[str | None] = mapped_column(String(8))

    team: Mapped[Team] = relationship(back_populates="members", lazy="joined")
    person: Mapped[Person] = relationship("Person", lazy="joined")

    @property
    def scope_id(self) -> str:
        return member_id(self.team_id, self.person_id)


class TeamInvitation(Base):
    """An owner's invitation of a person to a team, which the person accepts or declines."""

    __tablename__ = "team_invitation"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    team_id: Mapped[str] = mapped_column(ForeignKey("team.id", ondelete="CASCADE"), index=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(String(8), default="member")
    invited_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    answered_at: Mapped[datetime | None]
    answer: Mapped[str | None] = mapped_column(String(16))  # accepted, declined, withdrawn

    team: Mapped[Team] = relationship(lazy="joined")
    person: Mapped[Person] = relationship("Person", lazy="joined")


# --- finding ---


def visible_to(person: Person) -> Select[Team]:
    """A query of the teams that a person can see, by name: those that they are in; all for admins."""
    query = select(Team).order_by(func.lower(Team.name))
    if person.sees_everything:
        return query
    return query.where(Team.id.in_(select(Membership.team_id).where(Membership.person_id == person.id)))


def search(person: Person, *, search: str | None = None) -> Select[Team]:
    """The same, filtered by a part of the name."""
    query = visible_to(person)
    return query.where(Team.name.icontains(search, autoescape=True)) if search else query


def get_visible(person: Person, id: str, *, change: bool = False) -> Team:
    """The team with this id if the person can see it. Raises `NotFound`, or `Forbidden` with `change` for a person who is
    neither its owner nor an admin."""
    team = db.session.scalar(visible_to(person).where(Team.id == id))
    if team is None:
        raise NotFound("This team does not exist.")
    if change and not manages(person, team):
        raise Forbidden("Changing a team needs the role owner in the team, or the role admin.")
    return team


def manages(person: Person, team: Team) -> bool:
    """Whether a person can change a team: its owners and admins."""
    return person.is_admin or role_in(person, team.id) == "owner"


def role_in(person: Person, team_id: str) -> str | None:
    """The person's role in a team; None if they are not in it."""
    membership = db.session.get(Membership, (team_id, person.id))
    return membership.role if membership else None


def memberships_of(person: Person) -> list[Membership]:
    """The person's memberships, by the team's name."""
    query = select(Membership).join(Team).where(Membership.person_id == person.id).order_by(func.lower(Team.name))
    return list(db.session.scalars(query))


def person_and_memberships(id: str) -> tuple[Person | None, list[Membership]]:
    """The person with this id and their memberships as in `memberships_of`, by one query."""
    query = (
        select(Person, Membership)
        .outerjoin(Membership, Membership.person_id == Person.id)
        .outerjoin(Team, Team.id == Membership.team_id)
        .where(Person.id == id)
        .options(contains_eager(Membership.team), lazyload(Membership.person))  # the person is already loaded
        .order_by(func.lower(Team.name))
    )
    rows = db.session.execute(query).all()
    found: list[Membership | None] = [row[1] for row in rows]  # None for a person in no team
    return (rows[0][0] if rows else None), [one for one in found if one is not None]


def owned_by(person: Person) -> tuple[str, ...]:
    """The ids of the teams that a person owns."""
    query = select(Membership.team_id).where(Membership.person_id == person.id, Membership.role == "owner")
    return tuple(db.session.scalars(query))


def joined_by(person: Person, *, search: str | None = None) -> Select[Team]:
    """A query of the teams that a person is in, by name, filtered by a part of the name; for admins too."""
    query = select(Team).join(Membership).where(Membership.person_id == person.id).order_by(func.lower(Team.name))
    return query.where(Team.name.icontains(search, autoescape=True)) if search else query


def all_(*, search: str | None = None) -> Select[Team]:
    """A query of all teams by name, filtered by a part of the name: for admins."""
    query = select(Team).order_by(func.lower(Team.name))
    return query.where(Team.name.icontains(search, autoescape=True)) if search else query


def member_count() -> ColumnElement[int]:
    """The number of a team's members as SQL, to sort lists by."""
    query = select(func.count()).where(Membership.team_id == Team.id).correlate(Team)
    return query.scalar_subquery()


def members_of(*found: Team) -> Select[Membership]:
    """A query of the members of one or several teams, owners first, then by name."""
    return (
        select(Membership)
        .join(Person, Person.id == Membership.person_id)
        .where(Membership.team_id.in_([team.id for team in found]))
        .order_by(Membership.role.desc(), func.lower(Person.username))
    )


def member(team: Team, person: Person) -> Membership:
    """A person's membership. Raises `NotFound`."""
    membership = db.session.get(Membership, (team.id, person.id))
    if membership is None:
        raise NotFound(f"{person.username} is not in this team.")
    return membership


def caps_in(*found: Team) -> list[str]:
    """The scopes of these teams' members who have a cap."""
    budget = budgets.Budget
    query = (
        select(budget.scope_id)
        .join(Membership, and_(Membership.team_id == budget.team_id, Membership.person_id == budget.person_id))
        .where(budget.scope_kind == "member", budget.team_id.in_([team.id for team in found]))
    )
    return list(db.session.scalars(query))


def called(name: str) -> Team | None:
    """The team with this name, in any case; None if there is none."""
    return db.session.scalar(select(Team).where(func.lower(Team.name) == name.strip().lower()))


def owners_of(team: Team) -> list[Person]:
    query = select(Person).join(Membership).where(Membership.team_id == team.id, Membership.role == "owner")
    return list(db.session.scalars(query))


def history(team: Team, *, limit: int = 20) -> list[audit.AuditEntry]:
    """The newest audit entries about a team and its budget, newest first."""
    return audit.history("team", team.id, limit=limit)


def counts(ids: Iterable[str]) -> dict[str, int]:
    """The number of members of these teams, by id."""
    query = select(Membership.team_id, func.count()).where(Membership.team_id.in_(set(ids)))
    return dict(db.session.execute(query.group_by(Membership.team_id)).all())


# --- teams ---


def create(
    *,
    by: Person | None,
    name: str,
    budget: Mapping[str, Any] | None = None,
    **values: Any,
) -> Team:
    """Create a team with the given `TeamFields`; `by` becomes its first owner; without one admins act for
    it. Only admins can set limits and a budget.

    Raises `Invalid` naming the field, or `Forbidden`.
    """
    if by and (budget is not None or any(values.get(limit) is not None for limit in fields.numbers(TeamFields))):
        _must_be_admin(by)
    team = Team(id=new_id())
    _fill(team, {**fields.usual(TeamFields), **values, "name": name})
    db.session.add(team)
    db.session.flush()
    if by:
        db.session.add(Membership(team_id=team.id, person_id=by.id, role="owner"))
    db.session.flush()
    audit.record(by, "team.create", "team", team.id, name=team.name, after=team.summary())
    if budget is not None:
        budgets.set_budget("team", team.id, by=by, **budget)
    mark_for_publication("team", team.id)
    return team


def update(
    team: Team,
    *,
    by: Person | None,
    budget: Mapping[str, Any] | None | Unset = UNSET,
    **values: Any,
) -> Team:
    """Change the given values, `TeamFields` included; a budget of None removes it. Only admins can change limits and the
    budget.

    Raises `Invalid`, or `Forbidden` if an owner changes their own team's limits or budget.
    """
    before = team.summary()
    _fill(team, values)
    after = team.summary()
    limited = budget is not UNSET or any(after[limit] != before[limit] for limit in fields.numbers(TeamFields))
    if by and limited:
        _must_be_admin(by)
    audit.record(by, "team.update", "team", team.id, name=team.name, before=before, after=after)
    if budget is None:
        budgets.clear("team", team.id, by=by)
    elif budget is not UNSET:
        budgets.set_budget("team", team.id, by=by, **budget)
    mark_for_publication("team", team.id)
    return team


def remove(team: Team, *, by: Person | None) -> None:
    """Delete a team that owns nothing: `app.workflows.offboarding.dissolve` first ends what it has."""
    for one in team.members:
        budgets.forget("member", one.scope_id)
        mark_for_publication("scope", f"member:{one.scope_id}")
    budgets.forget("team", team.id)
    audit.record(by, "team.delete", "team", team.id, name=team.name, before=team.summary(), after={})
    mark_for_publication("team", team.id)
    db.session.delete(team)
    db.session.flush()


# --- members ---


def put_member(
    team: Team,
    person: Person,
    *,
    by: Person | None,
    role: str = "member",
    budget: Mapping[str, Any] | None | Unset = UNSET,
    given_by: str | None = None,
) -> Membership:
    """Add a person to a team or change their role and cap. `given_by` says who may take a new membership back (see
    `Membership`). Raises `Invalid` or `Conflict`."""
    if role not in ROLES:
        raise Invalid(f"Choose one of {', '.join(ROLES)}.", "role")
    membership = db.session.get(Membership, (team.id, person.id))
    before = {"role": membership.role} if membership else {}
    if membership is None:
        if len(team.members) >= MOST_MEMBERS:
            raise Conflict(f"A team has at most {MOST_MEMBERS} members.")
        membership = Membership(team_id=team.id, person_id=person.id, role=role, given_by=given_by)
        db.session.add(membership)
        for waiting in invitations_of(team, to=person):  # or it would let them in again after they were removed
            waiting.answer, waiting.answered_at = "withdrawn", now()
        if by is None or by.id != person.id:
            notices.notify(
                person,
                "team.joined",
                f"You joined the team {team.name}",
                f"{by.username if by else 'Your organisation'} added you as {role}.",
                f"/teams/{team.id}",
            )
    elif membership.role == "owner" and role != "owner":
        _must_keep_an_owner(team, person)
    membership.role = role
    db.session.flush()
    if before != {"role": role}:
        audit.record(
            by, "team.member", "team", team.id, name=team.name, before=before, after={"role": role},
            on_behalf_of=person.username,
        )  # fmt: skip
    if budget is None:
        budgets.clear("member", membership.scope_id, by=by)
    elif budget is not UNSET:
        budgets.set_budget("member", membership.scope_id, by=by, **budget)
    mark_for_publication("person", person.id)
    mark_for_publication("scope", f"member:{membership.scope_id}")
    db.session.refresh(team, ["members"])
    return membership


def remove_member(team: Team, person: Person, *, by: Person | None, ownerless: bool = False) -> None:
    """Remove a person from a team; /v1 refuses the team's keys that they created within a second.

    Raises `NotFound`, or `Conflict` for the last owner, unless the team may be `ownerless`.
    """
    found = member(team, person)
    if found.role == "owner" and not ownerless:
        _must_keep_an_owner(team, person)
    budgets.forget("member", found.scope_id)
    db.session.delete(found)
    db.session.flush()
    audit.record(
        by, "team.leave", "team", team.id, name=team.name, before={"role": found.role}, after={},
        on_behalf_of=person.username,
    )  # fmt: skip
    if by is None or by.id != person.id:
        notices.notify(
            person,
            "team.left",
            f"You are no longer in the team {team.name}",
            "The team's keys that you created are revoked.",
        )
    mark_for_publication("person", person.id)
    mark_for_publication("scope", f"member:{member_id(team.id, person.id)}")
    db.session.refresh(team, ["members"])


def let_go(membership: Membership, *, by: Person | None) -> None:
    """End the membership of a person who is being deleted. A team without members remains; admins can assign it.

    Raises `Conflict` for the last owner of a team that has other members.
    """
    if membership.role == "owner" and len(membership.team.members) > 1:
        _must_keep_an_owner(membership.team, membership.person)
    budgets.forget("member", membership.scope_id)
    mark_for_publication("scope", f"member:{membership.scope_id}")
    db.session.delete(membership)
    db.session.flush()


# --- invitations ---


def invite(team: Team, person: Person, *, by: Person, role: str = "member") -> TeamInvitation:
    """Invite a person to a team; return the open invitation if there is one. Raises `Invalid` or `Conflict`."""
    if role not in ROLES:
        raise Invalid(f"Choose one of {', '.join(ROLES)}.", "role")
    if db.session.get(Membership, (team.id, person.id)):
        raise Conflict(f"{person.username} is already in this team.", "username")
    if person.disabled:
        raise Invalid(f"{person.username} can't sign in now.", "username")
    waiting = db.session.scalar(
        select(TeamInvitation).where(
            TeamInvitation.team_id == team.id,
            TeamInvitation.person_id == person.id,
            TeamInvitation.answered_at.is_(None),
        )
    )
    if waiting is not None:
        return waiting
    invitation = TeamInvitation(id=new_id(), team_id=team.id, person_id=person.id, role=role, invited_by=by.username)
    db.session.add(invitation)
    db.session.flush()
    audit.record(by, "team.invite", "team", team.id, name=team.name, after={"role": role}, on_behalf_of=person.username)
    notices.notify(
        person,
        "team.invitation",
        f"{by.username} invites you to the team {team.name}",
        "Accept or decline it.",
        "/teams",
    )
    return invitation


def invitations_to(person: Person) -> list[TeamInvitation]:
    """A person's open invitations, oldest first."""
    query = select(TeamInvitation).where(TeamInvitation.person_id == person.id, TeamInvitation.answered_at.is_(None))
    return list(db.session.scalars(query.order_by(TeamInvitation.id)))


def invitations_of(team: Team, *, to: Person | None = None) -> list[TeamInvitation]:
    """A team's open invitations, oldest first; only those to one person if `to` is given."""
    query = select(TeamInvitation).where(TeamInvitation.team_id == team.id, TeamInvitation.answered_at.is_(None))
    if to is not None:
        query = query.where(TeamInvitation.person_id == to.id)
    return list(db.session.scalars(query.order_by(TeamInvitation.id)))


def reach_invitation(person: Person, id: str) -> TeamInvitation:
    """An open invitation to this person, or of a team that they manage. Raises `NotFound`."""
    invitation = db.session.get(TeamInvitation, id)
    if invitation is None or invitation.answered_at is not None:
        raise NotFound("This invitation does not exist.")
    if invitation.person_id != person.id and not manages(person, invitation.team):
        raise NotFound("This invitation does not exist.")
    return invitation


def answer(invitation: TeamInvitation, *, by: Person, accept: bool) -> TeamInvitation:
    """Accept, decline or withdraw an invitation. Only the invited person can accept; from anyone else, declining withdraws
    it. Raises `Forbidden`."""
    if by.id != invitation.person_id:
        if accept:
            raise Forbidden("Only the person who was invited can accept.")
        invitation.answer = "withdrawn"
    else:
        invitation.answer = "accepted" if accept else "declined"
    invitation.answered_at = now()
    audit.record(
        by, f"team.invitation.{invitation.answer}", "team", invitation.team_id, name=invitation.team.name,
        on_behalf_of=invitation.person.username,
    )  # fmt: skip
    if invitation.answer == "accepted":
        put_member(invitation.team, invitation.person, by=by, role=invitation.role)
    if by.id == invitation.person_id:
        for owner in owners_of(invitation.team):
            if owner.id != by.id:
                notices.notify(
                    owner, "team.answer", f"{by.username} has {invitation.answer} the invitation to {invitation.team.name}", "",
                    f"/teams/{invitation.team_id}",
                )  # fmt: skip
    return invitation


def _fill(team: Team, values: Mapping[str, Any]) -> None:
    with db.session.no_autoflush:
        fields.fill(TeamFields, team, values)
        taken = select(Team.id).where(func.lower(Team.name) == team.name.lower(), Team.id != team.id)
        if db.session.scalar(taken):
            raise Conflict(f"The name {team.name} is taken.", "name")


def _must_be_admin(by: Person) -> None:
    """Raise `Forbidden` unless `by` is an admin: owners do not set their own team's limits."""
    if not by.is_admin:
        raise Forbidden(
            "Only an admin can change a team's limits and budget. Request an increase on the budget's page."
        )


def is_last_owner(team: Team, person: Person) -> bool:
    """Whether a team would be without an owner if this person left it."""
    owners = db.session.scalars(
        select(Membership.person_id).where(Membership.team_id == team.id, Membership.role == "owner").limit(2)
    )
    return list(owners) == [person.id]


def _must_keep_an_owner(team: Team, leaving: Person) -> None:
    """Raise `Conflict` if `leaving` is the last owner. It locks the team, so that two owners cannot leave concurrently."""
    db.session.execute(select(Team.id).where(Team.id == team.id).with_for_update())
    db.session.refresh(team, ["members"])
    if not any(one.role == "owner" and one.person_id != leaving.id for one in team.members):
        raise Conflict("A team needs an owner. Make another member an owner first.")
