"""Teams: their members and roles, what a team may spend, and how much of that each member may."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route, sent_members, with_fields
from app.blueprints.api.keys import BudgetNow, show_budget
from app.blueprints.api.subscriptions import BudgetBody
from app.domain import budgets, fields, identity, teams
from app.domain.errors import Forbidden, NotFound
from app.domain.teams import Role
from app.extensions import db
from app.workflows import offboarding


class TeamMember(msgspec.Struct, kw_only=True):
    """A person in a team. `budget` is their cap in it; null without one."""

    username: str
    role: str
    joined_at: datetime
    budget: BudgetNow | None


class JoinedTeam(msgspec.Struct, kw_only=True):
    """Who is in a team, and what they may spend together."""

    id: str
    role: str | None
    budget: BudgetNow | None
    members: list[TeamMember]


if TYPE_CHECKING:
    DeclaredTeam = JoinedTeam
    NewTeamBody = Body
    TeamBody = Body
else:
    DeclaredTeam = with_fields(JoinedTeam, teams.TeamFields)
    NewTeamBody = with_fields(Body, teams.TeamFields, absent=UNSET, required=("name",))
    TeamBody = with_fields(Body, teams.TeamFields, absent=UNSET)


class Team(DeclaredTeam, kw_only=True):
    """A team. `role` is your own role in it; null for an admin who is not a member."""

    created_at: datetime


class TeamPage(CursorPage, kw_only=True):
    data: list[Team]


class NewTeam(NewTeamBody, kw_only=True):
    """`budget`, `rpm` and `tpm` are for admins."""

    budget: BudgetBody | None = None


class TeamChange(TeamBody, kw_only=True):
    """What you leave out stays unchanged; null removes a limit. `budget`, `rpm` and `tpm` are for admins."""

    budget: BudgetBody | None | UnsetType = UNSET


class MemberBody(Body, kw_only=True):
    """What you leave out stays unchanged; a new member gets the role `member` and no cap. A `budget` of null removes
    the cap."""

    role: Role | UnsetType = UNSET
    budget: BudgetBody | None | UnsetType = UNSET


class Query(Cursored, kw_only=True):
    """`search` looks in names."""

    search: str | None = None


def show(team: teams.Team) -> Team:
    return _show_all([team])[0]


def _show_all(rows: Sequence[teams.Team]) -> list[Team]:
    """The fields of each team. Members and budgets are read for all teams together."""
    members: dict[str, list[teams.Membership]] = {team.id: [] for team in rows}
    for membership in db.session.scalars(teams.members_of(*rows)):
        members[membership.team_id].append(membership)
    scopes = [("team", team.id) for team in rows] + [("member", scope) for scope in teams.caps_in(*rows)]
    budget_of = {standing.id: show_budget(standing) for standing in budgets.standings(scopes)}
    return [
        Team(
            id=team.id,
            **fields.told(teams.TeamFields, team),
            role=next((membership.role for membership in members[team.id] if membership.person_id == me().id), None),
            budget=budget_of[team.id],
            members=[_show_member(membership, budget_of.get(membership.scope_id)) for membership in members[team.id]],
            created_at=team.created_at,
        )
        for team in rows
    ]


def _show_member(membership: teams.Membership, cap: BudgetNow | None) -> TeamMember:
    return TeamMember(
        username=membership.person.username, role=membership.role, joined_at=membership.joined_at, budget=cap
    )


@route("GET", "/api/teams", query=Query, answer=TeamPage)
def index(query: Query) -> dict[str, Any]:
    """Lists the teams that you are in, by name; admins see all."""
    result = page(teams.search(me(), search=query.search), lambda team: team)
    return result | {"data": _show_all(result["data"])}


@route("POST", "/api/teams", answer=Team, status=201, body=NewTeam, writes=True)
def create(body: NewTeam) -> Team:
    """Creates a team, which you own."""
    return show(
        teams.create(
            by=me(),
            budget=body.budget.to_changes() if body.budget else None,
            **sent_members(body, "budget"),
        )
    )


@route("GET", "/api/teams/<id>", answer=Team)
def detail(id: str) -> Team:
    """Returns one team with its members, for everyone in it."""
    return show(teams.get_visible(me(), id))


@route("PATCH", "/api/teams/<id>", answer=Team, body=TeamChange, writes=True)
def change(id: str, body: TeamChange) -> Team:
    """Changes a team: owners its name and description, admins also its limits and budget."""
    changes = sent_members(body)
    if isinstance(body.budget, BudgetBody):
        changes["budget"] = body.budget.to_changes()
    return show(teams.update(teams.get_visible(me(), id, change=True), by=me(), **changes))


@route("DELETE", "/api/teams/<id>", status=204, writes=True)
def remove(id: str) -> None:
    """Deletes a team. Its keys are revoked and its subscriptions cancelled; its usage stays in the ledger."""
    offboarding.dissolve(teams.get_visible(me(), id, change=True), by=me())


@route("GET", "/api/teams/<id>/members/<username>", answer=TeamMember)
def member(id: str, username: str) -> TeamMember:
    """Returns one member of a team, for everyone in it."""
    team, person = teams.get_visible(me(), id), identity.find(username)
    if person is None:
        raise NotFound(f"{username} is not in this team.")
    membership = teams.member(team, person)
    return _show_member(membership, show_budget(budgets.standing("member", membership.scope_id)))


@route("PUT", "/api/teams/<id>/members/<username>", answer=TeamMember, body=MemberBody, writes=True)
def put_member(id: str, username: str, body: MemberBody) -> TeamMember:
    """Adds a member, or changes a member's role or cap. For the team's owners and admins."""
    team = teams.get_visible(me(), id, change=True)
    person = identity.named(username)
    role = body.role if body.role is not UNSET else teams.role_in(person, team.id) or "member"
    budget = body.budget.to_changes() if isinstance(body.budget, BudgetBody) else body.budget
    membership = teams.put_member(team, person, by=me(), role=role, budget=budget)
    return _show_member(membership, show_budget(budgets.standing("member", membership.scope_id)))


@route("DELETE", "/api/teams/<id>/members/<username>", status=204, writes=True)
def remove_member(id: str, username: str) -> None:
    """Removes a member from a team, or leaves it yourself. The team's keys that they created are revoked."""
    team = teams.get_visible(me(), id)
    if username.lower() != me().username.lower() and not teams.manages(me(), team):
        raise Forbidden("Taking others out of a team needs its role owner, or the role admin.")
    offboarding.leave(team, identity.named(username), by=me())
