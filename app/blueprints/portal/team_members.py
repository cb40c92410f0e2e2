"""The members of a team: invite them, set their role and cap, remove them, or leave."""

from __future__ import annotations

from flask import Blueprint, Response, url_for
from sqlalchemy import func, select

from app.blueprints.portal.person import me
from app.blueprints.portal.team_forms import InvitationForm, MemberForm
from app.blueprints.portal.teams import page_of_team
from app.domain import budgets, identity, keys, teams
from app.domain.errors import DomainError, Forbidden, NotFound
from app.domain.person import Person
from app.domain.teams import Membership, Team
from app.extensions import db, transaction
from app.web.forms import blame, is_confirmed_by
from app.web.render import render, see_other, toast_next
from app.workflows import offboarding

OFFERED = 20  # members to hand a team over to

bp = Blueprint("team_members", __name__)


@bp.post("/teams/<id>/invitations")
def invite(id: str) -> Response:
    team, form = teams.get_visible(me(), id, change=True), InvitationForm()
    if not form.validate_on_submit():
        return page_of_team(team, "members", 422, inviting=form)
    try:
        person = identity.called(form.whom.data or "")
        transaction(teams.invite, team, person, by=me(), role=form.role.data)
    except DomainError as error:
        blame(form, error, username="whom")
        return page_of_team(teams.get_visible(me(), id), "members", 422, inviting=form)
    toast_next("success", f"Invitation sent to {person.username}.")
    return _members_of(id)


@bp.post("/teams/<id>/invitations/<invitation_id>/withdrawal")
def withdraw(id: str, invitation_id: str) -> Response:
    teams.get_visible(me(), id, change=True)
    invitation = teams.reach_invitation(me(), invitation_id)
    if invitation.team_id != id:
        raise NotFound("This invitation does not exist.")
    name = invitation.person.username
    transaction(teams.answer, invitation, by=me(), accept=False)
    toast_next("success", f"The invitation of {name} is withdrawn.")
    return _members_of(id)


@bp.get("/teams/<id>/members/<username>")
def detail(id: str, username: str) -> Response:
    team, member = _team_and_member(id, username)
    return _member(team, member, MemberForm.of(member))


@bp.post("/teams/<id>/members/<username>")
def change(id: str, username: str) -> Response:
    team, member = _team_and_member(id, username)
    form = MemberForm()
    if not form.validate_on_submit():
        return _member(team, member, form, 422)
    budget = form.to_changes("member", member.scope_id)
    try:
        form.save(
            lambda: MemberForm.of(_team_and_member(id, username)[1]),
            teams.put_member, team, member.person, by=me(), role=form.role.data, budget=budget,
        )  # fmt: skip
    except DomainError as error:
        status = blame(form, error, **({} if error.field else {"": "role"}))
        return _member(*_team_and_member(id, username), form, status)
    toast_next("success", f"{username} is saved. A cap holds on /v1 within a second.")
    return _members_of(id)


@bp.get("/teams/<id>/members/<username>/removal")
def removal(id: str, username: str) -> Response:
    team, member = _team_and_member(id, username)
    return render("portal/teams/removal.html", team=team, member=member, stops=_keys_of(team, member.person))


@bp.post("/teams/<id>/members/<username>/removal")
def remove(id: str, username: str) -> Response:
    team, member = _team_and_member(id, username)
    person = member.person
    if not is_confirmed_by(person.username):
        stops = _keys_of(team, person)
        return render("portal/teams/removal.html", status=422, team=team, member=member, stops=stops, fault=True)
    name = person.username
    try:
        transaction(offboarding.leave, team, person, by=me())
    except DomainError as error:
        toast_next("danger", error.message)
    else:
        toast_next("success", f"{name} is no longer in the team. The team’s keys that they made have stopped.")
    return _members_of(id)


@bp.get("/teams/<id>/leaving")
def leaving(id: str) -> Response:
    team, person = _mine(id), me()
    return render(
        "portal/teams/leaving.html",
        team=team,
        stops=_keys_of(team, person),
        is_last_owner=teams.is_last_owner(team, person),
        others=[one.person.username for one in team.members if one.person_id != person.id][:OFFERED],
    )


@bp.post("/teams/<id>/leaving")
def leave(id: str) -> Response:
    team = _mine(id)
    name = team.name
    try:
        transaction(offboarding.leave, team, me(), by=me())
    except DomainError as error:
        toast_next("danger", error.message)
        return _members_of(id)
    toast_next("success", f"You are no longer in the team {name}.")
    return see_other(url_for("portal.teams.index"))


def _mine(id: str) -> Team:
    """Returns a team that the person is in. Raises `NotFound` or `Forbidden`."""
    team = teams.get_visible(me(), id)
    if teams.role_in(me(), id) is None:
        raise Forbidden("You are not in this team.")
    return team


def _team_and_member(id: str, username: str) -> tuple[Team, Membership]:
    team = teams.get_visible(me(), id, change=True)
    return team, teams.member(team, identity.named(username))


def _members_of(id: str) -> Response:
    return see_other(url_for("portal.teams.detail", id=id, tab="members"))


def _keys_of(team: Team, person: Person) -> int:
    """Returns how many live keys of the team this person created."""
    query = select(func.count()).select_from(keys.of_team(team, by=person).where(keys.live()).subquery())
    return db.session.scalar(query) or 0


def _member(team: Team, member: Membership, form: MemberForm, status: int = 200) -> Response:
    return render(
        "portal/teams/member.html",
        status=status,
        team=team,
        member=member,
        form=form,
        standing=budgets.standing("member", member.scope_id),
    )
