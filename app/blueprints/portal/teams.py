"""Teams: those you are in and those you are invited to, each with its members, models, keys, usage and settings.

Members see all of it. Owners and administrators change it; only administrators change its limits. Only owners see the
single requests of others.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response, request, url_for
from sqlalchemy import func
from werkzeug.wrappers import Response as AnyResponse
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older

from app.blueprints.portal.person import me
from app.blueprints.portal.team_forms import BoundsForm, InvitationForm, ModelForm, TeamForm
from app.clock import from_ms
from app.domain import budgets, keys, payers, subscriptions, teams
from app.domain.catalog import Model
from app.domain.errors import DomainError, Forbidden
from app.domain.person import Person
from app.domain.teams import Membership, Team
from app.extensions import db, transaction
from app.metering.scopes import member_id
from app.pages import keys as key_pages
from app.pages import usage as usage_pages
from app.pages.budgets import named_standings
from app.pages.history import history_lines
from app.pages.teams import COLUMNS, export_columns, figures, this_month
from app.reports import requests
from app.reports import usage as usage_reports
from app.reports.planner import TeamReader
from app.reports.usage import Filters
from app.web import exports
from app.web.forms import blame, is_confirmed_by
from app.web.lists import filters_from_request, list_page, page_of, requested_sort, sorted_by_request
from app.web.render import render, see_other, toast_next
from app.web.request_cache import memberships, role_in, visible_team
from app.workflows import budget_requests, catalog_changes, offboarding

TABS = {
    "overview": "Overview",
    "members": "Members",
    "models": "Models",
    "keys": "Keys",
    "usage": "Usage",
    "settings": "Settings",
}
READ_ONLY = "Read-only access: your role can’t change teams."
FOR_OWNERS = "Only the team’s owners may change this."
FOR_ADMINS = "A team’s limits and budget are set by administrators."
LAST = 10  # requests and history entries that the overview shows
MEMBER_COLUMNS = {"name": func.lower(Person.username), "role": Membership.role, "joined": Membership.joined_at}


bp = Blueprint("teams", __name__)


@bp.get("/teams")
def index() -> Response:
    person, filters = me(), filters_from_request()
    roles = {membership.team_id: membership.role for membership in memberships(person)}
    return list_page(
        "portal/teams",
        teams.joined_by(person, search=filters.search),
        COLUMNS,
        file=lambda file_format, rows: exports.answer(
            file_format, "teams", export_columns(figures(person, list(roles)), roles), rows
        ),
        page=lambda listing: {"figures": figures(person, [team.id for team in listing.items])},
        roles=roles,
        invitations=teams.invitations_to(person),
        search=filters.search,
    )


@bp.get("/teams/new")
def new() -> Response:
    return render("portal/teams/new.html", form=TeamForm(formdata=None))


@bp.post("/teams")
def create() -> Response:
    form = TeamForm()
    if not form.validate_on_submit():
        return render("portal/teams/new.html", status=422, form=form)
    try:
        team = transaction(teams.create, by=me(), **form.entered())
    except DomainError as error:
        blame(form, error)
        return render("portal/teams/new.html", status=422, form=form)
    toast_next("success", f"Team {team.name} created. Invite its members.")
    return see_other(url_for("portal.teams.detail", id=team.id, tab="members"))


@bp.post("/teams/invitations/<id>/answer")
def answer(id: str) -> AnyResponse:
    """Accepts or declines an invitation, for the invited person."""
    person = me()
    invitation = teams.reach_invitation(person, id)
    if invitation.person_id != person.id:
        raise Forbidden("Only the person who was invited can answer.")
    accept = request.form.get("answer") == "accept"
    team_id, name = invitation.team_id, invitation.team.name
    transaction(teams.answer, invitation, by=person, accept=accept)
    if accept:
        toast_next("success", f"You joined {name}.")
        return see_other(url_for("portal.teams.detail", id=team_id))
    toast_next("info", f"You declined the invitation to {name}.")
    return see_other(url_for("portal.teams.index"))


@bp.get("/teams/<id>")
def detail(id: str) -> Response:
    team = visible_team(me(), id)
    tab = request.args.get("tab", "")
    return page_of_team(team, tab if tab in TABS else "overview")


@bp.post("/teams/<id>/settings")
def change(id: str) -> Response:
    team, form = teams.get_visible(me(), id, change=True), TeamForm()
    if not form.validate_on_submit():
        return page_of_team(team, "settings", 422, settings=form)
    try:
        form.save(
            lambda: TeamForm.of(team),
            teams.update, team, by=me(), **form.entered(),
        )  # fmt: skip
    except DomainError as error:
        return page_of_team(teams.get_visible(me(), id), "settings", blame(form, error), settings=form)
    toast_next("success", f"The team {team.name} is saved.")
    return see_other(url_for("portal.teams.detail", id=id, tab="settings"))


@bp.post("/teams/<id>/limits")
def bound(id: str) -> Response:
    team, form = teams.get_visible(me(), id, change=True), BoundsForm()
    if not me().is_admin:
        raise Forbidden(FOR_ADMINS)
    if not form.validate_on_submit():
        return page_of_team(team, "settings", 422, bounds=form)
    try:
        form.save(
            lambda: BoundsForm.of(team),
            teams.update, team, by=me(), budget=form.to_changes("team", id), **form.entered(),
        )  # fmt: skip
    except DomainError as error:
        return page_of_team(teams.get_visible(me(), id), "settings", blame(form, error), bounds=form)
    toast_next("success", f"The limits of {team.name} are saved. They hold on /v1 within a second.")
    return see_other(url_for("portal.teams.detail", id=id, tab="settings"))


@bp.post("/teams/<id>/subscriptions")
def subscribe(id: str) -> Response:
    """Requests a model for the team. Any member may."""
    person = me()
    team, form = teams.get_visible(person, id), ModelForm()
    if teams.role_in(person, id) is None:
        raise Forbidden("Only members can ask for a team.")
    if not form.validate_on_submit():
        return page_of_team(team, "models", 422, asking=form)
    try:
        model = catalog_changes.visible(person, form.model.data or "")
        if model.restricted and not (form.justification.data or "").strip():
            form.justification.errors = ["Enter what the team needs this model for."]
            return page_of_team(team, "models", 422, asking=form)
        subscription, is_new = transaction(
            subscriptions.request,
            person, model, by=person, justification=form.justification.data or None, team=team,
        )  # fmt: skip
    except DomainError as error:
        blame(form, error)
        return page_of_team(teams.get_visible(person, id), "models", 422, asking=form)
    if not is_new:
        toast_next("info", f"{team.name} has {subscription.model_name} already: it is {subscription.status}.")
    elif subscription.status == "pending":
        toast_next("success", f"The request for {subscription.model_name} is sent. An administrator will decide.")
    else:
        toast_next("success", f"{team.name} may call {subscription.model_name} now.")
    return see_other(url_for("portal.teams.detail", id=id, tab="models"))


@bp.get("/teams/<id>/deletion")
def deletion(id: str) -> Response:
    team = teams.get_visible(me(), id, change=True)
    return render("portal/teams/deletion.html", team=team, stops=_what_stops(team))


@bp.post("/teams/<id>/deletion")
def delete(id: str) -> Response:
    team = teams.get_visible(me(), id, change=True)
    name = team.name
    if not is_confirmed_by(name):
        return render("portal/teams/deletion.html", status=422, team=team, stops=_what_stops(team), fault=True)
    transaction(offboarding.dissolve, team, by=me())
    toast_next("success", f"The team {name} is deleted. What it used stays in the ledger.")
    return see_other(url_for("portal.teams.index"))


# --- what the pages show ---------------------------------------------------------------------------------------------


def page_of_team(team: Team, tab: str, status: int = 200, **forms: Any) -> Response:
    """Answers with one tab of a team. A form that was refused is shown again with its values."""
    person = me()
    role = role_in(person, team.id)
    manages = teams.manages(person, team)
    values = {
        "overview": _overview, "members": _members, "models": _models, "keys": _keys, "usage": _usage,
        "settings": _settings,
    }[tab](person, team, **forms)  # fmt: skip
    return render(
        "portal/teams/detail.html",
        f"portal/teams/_{tab}.html",
        status=status,
        team=team,
        role=role,
        is_last_owner=role == "owner" and teams.is_last_owner(team, person),
        tab=tab,
        tabs=TABS,
        locked=None if manages else FOR_OWNERS if role else READ_ONLY,
        **values,
    )


def _overview(person: Person, team: Team) -> dict[str, Any]:
    scopes = [("team", team.id, "The team’s budget")]
    if role_in(person, team.id):
        scopes.append(("member", member_id(team.id, person.id), "Your share of it"))
    sees_others = _sees_others(person, team)
    reader = TeamReader(person.id, person.sees_everything, (team.id,))
    pending = list(db.session.scalars(budget_requests.pending_of_team(team.id))) if sees_others else []
    last = requests.newest(reader if sees_others else person, filters=Filters(team_id=team.id), limit=LAST)
    return {
        "members": teams.counts([team.id]).get(team.id, 0),
        "month": usage_reports.totals(reader, filters=this_month(team.id)),
        "budgets": [
            (name, standing, url_for("portal.budgets.detail", scope=standing.kind, id=standing.id))
            for name, standing in named_standings(scopes)
        ],
        "models": list(
            db.session.scalars(
                subscriptions.of_team(team, status="active").with_only_columns(subscriptions.Subscription.model_name)
            )
        ),
        "sees_others": sees_others,
        "last": last,
        "people": usage_pages.Names().of("user", {entry.person_id for entry in last}) if sees_others else None,
        "history": history_lines(teams.history(team, limit=LAST)),
        "budget_requests": pending,
        "payer_of": payers.read(one.scope for one in pending),
    }


def _sees_others(person: Person, team: Team) -> bool:
    """Whether a person sees what each member of a team did."""
    return person.sees_everything or role_in(person, team.id) == "owner"


def _members(person: Person, team: Team, inviting: InvitationForm | None = None) -> dict[str, Any]:
    search = filters_from_request().search
    query = teams.members_of(team)
    if search:
        query = query.where(Person.username.icontains(search, autoescape=True))
    listing = page_of(sorted_by_request(query, MEMBER_COLUMNS))
    person_ids = [member.person_id for member in listing.items]
    scopes = [("member", member.scope_id) for member in listing.items]
    reader = TeamReader(person.id, person.sees_everything, (team.id,))
    spent = usage_reports.by(reader, "person_id", filters=this_month(team.id), limit=teams.MOST_MEMBERS)
    return {
        "listing": listing,
        "search": search,
        "sort": requested_sort(MEMBER_COLUMNS),
        "standings": dict(zip(person_ids, budgets.standings(scopes), strict=True)),
        "spent_nano": {share.name: share.cost_nano for share in spent},
        "last_used": _last_used(reader, team, person_ids),
        "pending_invitations": teams.invitations_of(team),
        "inviting": inviting or InvitationForm(formdata=None),
    }


def _last_used(reader: TeamReader, team: Team, person_ids: list[str]) -> dict[str, datetime]:
    """When these members last used a key of the team, by person id."""
    their_keys = keys.of_team(team).where(keys.ApiKey.person_id.in_(person_ids))
    owners: dict[str, str] = dict(
        db.session.execute(their_keys.with_only_columns(keys.ApiKey.id, keys.ApiKey.person_id)).all()
    )
    latest: dict[str, int] = {}
    for key_id, at_ms in requests.last_use(reader, owners).items():
        latest[owners[key_id]] = max(at_ms, latest.get(owners[key_id], 0))
    return {person_id: from_ms(at_ms) for person_id, at_ms in latest.items()}


def _models(person: Person, team: Team, asking: ModelForm | None = None) -> dict[str, Any]:
    listing = page_of(subscriptions.of_team(team))
    access_form = asking or ModelForm(formdata=None)
    live = set(
        db.session.scalars(
            subscriptions.of_team(team)
            .where(subscriptions.Subscription.status.in_(subscriptions.LIVE))
            .with_only_columns(subscriptions.Subscription.model_id)
        )
    )
    access_form.model.choices = [
        SelectChoice(name, f"{title}{' (asks an administrator)' if restricted else ''}")
        for id, name, title, restricted in db.session.execute(
            catalog_changes.find(person, catalog_changes.CatalogFilter()).with_only_columns(
                Model.id, Model.name, Model.display_name, Model.restricted
            )
        )
        if id not in live
    ]
    return {
        "listing": listing,
        "standings": {one.id: one for one in budgets.standings([("subscription", one.id) for one in listing.items])},
        "may_end": {one.id for one in listing.items if one.is_live and subscriptions.may_change(person, one)},
        "asking": access_form,
    }


def _keys(person: Person, team: Team) -> dict[str, Any]:
    listing = page_of(sorted_by_request(keys.of_team(team), key_pages.COLUMNS))
    reader = TeamReader(person.id, person.sees_everything, (team.id,))
    return {
        "listing": listing,
        "rows": key_pages.rows(reader, listing.items),
        "sort": requested_sort(key_pages.COLUMNS),
    }


def _usage(person: Person, team: Team) -> dict[str, Any]:
    reader = TeamReader(person.id, person.sees_everything, (team.id,))
    filters = this_month(team.id)
    by_member = usage_reports.by(reader, "person_id", filters=filters)
    return {
        "month": usage_reports.totals(reader, filters=filters),
        "by_model": usage_reports.by_model(reader, filters=filters),
        "by_member": by_member,
        "days": usage_reports.usage(reader, "day", periods=30, filters=Filters(team_id=team.id)),
        "people": usage_pages.Names().of("user", {share.name for share in by_member}),
        "sees_others": _sees_others(person, team),
    }


def _settings(
    person: Person, team: Team, settings: TeamForm | None = None, bounds: BoundsForm | None = None
) -> dict[str, Any]:
    return {
        "settings": settings or TeamForm.of(team),
        "bounds": bounds or BoundsForm.of(team),
        "standing": budgets.standing("team", team.id),
        "bounds_locked": None if person.is_admin else READ_ONLY if person.sees_everything else FOR_ADMINS,
    }


def _what_stops(team: Team) -> dict[str, int]:
    """How many keys, subscriptions and memberships end with the team."""
    live_keys = db.session.scalars(keys.of_team(team).where(keys.live()))
    return {
        "keys": len(live_keys.all()),
        "subscriptions": sum(one.is_live for one in db.session.scalars(subscriptions.of_team(team))),
        "members": teams.counts([team.id]).get(team.id, 0),
    }
