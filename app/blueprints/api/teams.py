"""Teams: who is in them in which role, what they may spend together, and what each member may of that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, given, me, page, route, with_fields
from app.blueprints.api.keys import BudgetNow, show_budget
from app.blueprints.api.subscriptions import BudgetBody
from app.domain import budgets, fields, identity, teams
from app.domain.errors import Forbidden, NotFound
from app.domain.teams import Role
from app.extensions import db
from app.workflows import offboarding


class TeamMember(msgspec.Struct, kw_only=True):
    """A person in a team. `budget` is their cap there, null without one."""

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
    """A team. `role` is one's own in it, null for an admin who is not in it."""

    created_at: datetime


class TeamPage(CursorPage, kw_only=True):
    data: list[Team]


class NewTeam(NewTeamBody, kw_only=True):
    """`budget`, `rpm` and `tpm` are for admins."""

    budget: BudgetBody | None = None


class TeamChange(TeamBody, kw_only=True):
    """What is left out stays; null takes a limit away. `budget`, `rpm` and `tpm` are for admins."""

    budget: BudgetBody | None | UnsetType = UNSET


class MemberBody(Body, kw_only=True):
    """What is left out stays, and for somebody new is `member` and no cap; a budget of null takes the cap away."""

    role: Role | UnsetType = UNSET
    budget: BudgetBody | None | UnsetType = UNSET


class Asked(Cursored, kw_only=True):
    """`search` looks in names."""

    search: str | None = None


def show(team: teams.Team) -> Team:
    return _show_all([team])[0]


def _show_all(rows: Sequence[teams.Team]) -> list[Team]:
    """What is told of each team; members and budgets are read for all of them at once."""
    members: dict[str, list[teams.Membership]] = {team.id: [] for team in rows}
    for found in db.session.scalars(teams.members_of(*rows)):
        members[found.team_id].append(found)
    scopes = [("team", team.id) for team in rows] + [("member", scope) for scope in teams.caps_in(*rows)]
    held = {standing.id: show_budget(standing) for standing in budgets.standings(scopes)}
    return [
        Team(
            id=team.id,
            **fields.told(teams.TeamFields, team),
            role=next((one.role for one in members[team.id] if one.person_id == me().id), None),
            budget=held[team.id],
            members=[_show_member(one, held.get(one.scope_id)) for one in members[team.id]],
            created_at=team.created_at,
        )
        for team in rows
    ]


def _show_member(found: teams.Membership, cap: BudgetNow | None) -> TeamMember:
    return TeamMember(username=found.person.username, role=found.role, joined_at=found.joined_at, budget=cap)


@route("GET", "/api/teams", query=Asked, answer=TeamPage)
def index(asked: Asked) -> dict[str, Any]:
    """The teams one is in, by name; all of them for admins."""
    told = page(teams.search(me(), search=asked.search), lambda team: team)
    return told | {"data": _show_all(told["data"])}


@route("POST", "/api/teams", answer=Team, status=201, body=NewTeam, writes=True)
def create(body: NewTeam) -> Team:
    """A new team, which one owns."""
    return show(
        teams.create(
            by=me(),
            budget=body.budget.given() if body.budget else None,
            **given(body, "budget"),
        )
    )


@route("GET", "/api/teams/<id>", answer=Team)
def detail(id: str) -> Team:
    """One team with its members, for everybody in it."""
    return show(teams.get_visible(me(), id))


@route("PATCH", "/api/teams/<id>", answer=Team, body=TeamChange, writes=True)
def change(id: str, body: TeamChange) -> Team:
    """Changes a team: its owners its name and description, admins its limits and budget too."""
    changes = given(body)
    if isinstance(body.budget, BudgetBody):
        changes["budget"] = body.budget.given()
    return show(teams.update(teams.get_visible(me(), id, change=True), by=me(), **changes))


@route("DELETE", "/api/teams/<id>", status=204, writes=True)
def remove(id: str) -> None:
    """Removes a team: its keys are revoked and its subscriptions cancelled; what it used stays in the books."""
    offboarding.dissolve(teams.get_visible(me(), id, change=True), by=me())


@route("GET", "/api/teams/<id>/members/<username>", answer=TeamMember)
def member(id: str, username: str) -> TeamMember:
    """One member of a team, for everybody in it."""
    team, person = teams.get_visible(me(), id), identity.find(username)
    if person is None:
        raise NotFound(f"{username} is not in this team.")
    found = teams.member(team, person)
    return _show_member(found, show_budget(budgets.standing("member", found.scope_id)))


@route("PUT", "/api/teams/<id>/members/<username>", answer=TeamMember, body=MemberBody, writes=True)
def put_member(id: str, username: str, body: MemberBody) -> TeamMember:
    """Makes a person a member, or changes a member's role or cap; for the team's owners and admins."""
    team = teams.get_visible(me(), id, change=True)
    person = identity.named(username)
    role = body.role if body.role is not UNSET else teams.role_in(person, team.id) or "member"
    budget = body.budget.given() if isinstance(body.budget, BudgetBody) else body.budget
    found = teams.put_member(team, person, by=me(), role=role, budget=budget)
    return _show_member(found, show_budget(budgets.standing("member", found.scope_id)))


@route("DELETE", "/api/teams/<id>/members/<username>", status=204, writes=True)
def remove_member(id: str, username: str) -> None:
    """Takes a member out of a team, or leaves it oneself; the team's keys that they made are revoked."""
    team = teams.get_visible(me(), id)
    if username.lower() != me().username.lower() and not teams.manages(me(), team):
        raise Forbidden("Taking others out of a team needs its role owner, or the role admin.")
    offboarding.leave(team, identity.named(username), by=me())
