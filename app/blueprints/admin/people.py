"""People: everyone who can sign in, each with their profile, budget, keys, access, sessions and history.

An admin sees the consequences before acting: deactivating says what stops, deleting asks for the name.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from flask import Blueprint, Response, request, url_for
from flask_wtf import FlaskForm
from sqlalchemy import func, select
from wtforms import StringField
from wtforms.validators import InputRequired, Length

from app import current
from app.blueprints.admin.person import me
from app.clock import from_ms, now, to_ms
from app.domain import audit, budgets, fields, identities, identity, keys, passwords, sessions, subscriptions, tokens
from app.domain.errors import DomainError, NotFound
from app.domain.keys import ApiKey
from app.domain.person import ROLE_NAMES, ROLES, Person, PersonFields
from app.domain.subscriptions import LIVE, Subscription
from app.domain.teams import Membership, Team
from app.extensions import db, transaction
from app.metering import money
from app.pages.audit import lines
from app.pages.budget_forms import BudgetFields
from app.reports import requests
from app.reports import usage as usage_reports
from app.reports.planner import Filters
from app.web import exports, one_time
from app.web.forms import EditForm, blame, is_confirmed_by, with_inputs
from app.web.lists import filters_from_request, list_page, page_of
from app.web.render import render, see_other, toast_next
from app.workflows import offboarding

STATUSES = ("active", "deactivated")
SECTIONS = ("profile", "keys", "subscriptions", "sessions", "history")
MOST_SPENDERS = 1_000_000

bp = Blueprint("people", __name__)

_keys = (
    select(func.count())
    .where(ApiKey.person_id == Person.id, ApiKey.revoked_at.is_(None))
    .correlate(Person)
    .scalar_subquery()
)
_subscriptions = (
    select(func.count())
    .where(Subscription.person_id == Person.id, Subscription.status.in_(LIVE))
    .correlate(Person)
    .scalar_subquery()
)
COLUMNS = {
    "name": func.lower(Person.username),
    "email": func.lower(Person.email),
    "role": Person.role,
    "keys": _keys,
    "subscriptions": _subscriptions,
    "seen": Person.last_seen_at,
    "created": Person.created_at,
    "status": Person.disabled,
}


class Figures(NamedTuple):
    """The figures that a list shows for each person, by person id. A person without a figure is missing."""

    keys: dict[str, int]
    subscriptions: dict[str, int]
    spent_nano: dict[str, int]
    teams: dict[str, list[str]]


@with_inputs(PersonFields, without=("scopes", "disabled"))
class ProfileForm(EditForm):
    """What an admin can change about a person. Empty limits mean none."""


class LinkForm(FlaskForm):
    """A subject of an identity provider."""

    issuer = StringField("Issuer", [InputRequired("Enter the issuer."), Length(max=255)])
    subject = StringField("Subject", [InputRequired("Enter the subject."), Length(max=255)])


class BudgetForm(BudgetFields, EditForm):
    """What a person may spend with their personal keys."""


@bp.get("/admin/people")
def index() -> Response:
    known_groups = identity.groups()
    filters = filters_from_request(role=ROLES, status=STATUSES, group=known_groups)
    return list_page(
        "admin/people",
        identity.people(search=filters.search, role=filters["role"], status=filters["status"], group=filters["group"]),
        COLUMNS,
        file=lambda file_format, rows: exports.answer(file_format, "people", _export_columns(_figures(None)), rows),
        page=lambda listing: {"figures": _figures([person.id for person in listing.items])},
        search=filters.search,
        role=filters["role"],
        chosen=filters["status"],
        group=filters["group"],
        groups=known_groups,
        roles=ROLE_NAMES,
    )


@bp.get("/admin/people/<username>")
def detail(username: str) -> Response:
    person = identity.named(username)
    section = request.args.get("section")
    return _detail(person, section if section in SECTIONS else SECTIONS[0])


@bp.post("/admin/people/<username>")
def change(username: str) -> Response:
    person, form = identity.named(username), ProfileForm()
    if not form.validate_on_submit():
        return _detail(person, "profile", 422, profile=form)
    try:
        form.save(
            lambda: _profile(identity.named(username)),
            identity.update,
            person,
            by=me(),
            **form.entered(),
        )
    except DomainError as error:
        blame(form, error)
        return _detail(identity.named(username), "profile", error.status, profile=form)
    toast_next("success", f"The profile of {username} is saved.")
    return see_other(url_for("admin.people.detail", username=username))


@bp.post("/admin/people/<username>/budget")
def set_budget(username: str) -> Response:
    person, form = identity.named(username), BudgetForm()
    if not form.validate_on_submit():
        return _detail(person, "profile", 422, budget=form)
    budget = form.to_budget()

    def now() -> BudgetForm:
        return _budget(person)

    try:
        if budget:
            form.save(now, budgets.set_budget, "user", person.id, by=me(), **budget)
        else:
            form.save(now, budgets.clear, "user", person.id, by=me())
    except DomainError as error:
        blame(form, error)
        return _detail(identity.named(username), "profile", error.status, budget=form)
    toast_next("success", f"The budget of {username} is {'saved' if budget else 'removed'}.")
    return see_other(url_for("admin.people.detail", username=username))


@bp.post("/admin/people/<username>/identities")
def link(username: str) -> Response:
    """Links a subject of an identity provider, who can sign in to this account from then on."""
    person, form = identity.named(username), LinkForm()
    if not form.validate_on_submit():
        return _detail(person, "sessions", 422, link=form)
    try:
        transaction(identities.link, person, issuer=form.issuer.data or "", subject=form.subject.data or "", by=me())
    except DomainError as error:
        blame(form, error)
        return _detail(identity.named(username), "sessions", error.status, link=form)
    toast_next("success", f"{username} can sign in with this subject.")
    return see_other(url_for("admin.people.detail", username=username, section="sessions"))


@bp.post("/admin/people/<username>/identities/<id>/unlinking")
def unlink(username: str, id: str) -> Response:
    transaction(lambda: identities.unlink(identities.get_of(identity.named(username), id), by=me()))
    toast_next("success", f"This subject can't sign in as {username} any more.")
    return see_other(url_for("admin.people.detail", username=username, section="sessions"))


@bp.get("/admin/people/<username>/password")
def password(username: str) -> Response:
    """The confirmation page."""
    return render("admin/people/password.html", person=identity.named(username))


@bp.post("/admin/people/<username>/password")
def set_password(username: str) -> Response:
    """Sets a temporary password, which the next page shows once."""
    person = identity.named(username)
    if person.id == me().id:
        toast_next("warning", "Change your own password in the menu at your name.")
        return see_other(url_for("admin.people.detail", username=username))
    text = identity.random_password()
    hashed = passwords.hashed(text)
    transaction(identity.update, person, by=me(), password=hashed)
    person, address = identity.named(username), url_for("admin.people.temporary_password", username=username)
    return one_time.show_once(person.id, text, address, lambda password: _with_password(person, password))


@bp.get("/admin/people/<username>/temporary-password")
def temporary_password(username: str) -> Response:
    """Shows a temporary password the first time that it is asked for."""
    person = identity.named(username)
    text = one_time.take(person.id)
    if text is None:
        words = "A temporary password is shown only once. If it is lost, set another."
        return one_time.gone(username, words, url_for("admin.people.detail", username=username))
    return _with_password(person, text)


def _with_password(person: Person, text: str) -> Response:
    """The only response that ever contains a temporary password."""
    response = render("admin/people/password_made.html", person=person, text=text)
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.get("/admin/people/<username>/deactivation")
def deactivation(username: str) -> Response:
    person = identity.named(username)
    return render("admin/people/deactivation.html", person=person, stops=_what_stops(person))


@bp.post("/admin/people/<username>/deactivation")
def deactivate(username: str) -> Response:
    person = identity.named(username)
    try:
        transaction(identity.update, person, by=me(), disabled=True)
    except DomainError as error:
        toast_next("danger", error.message)
    else:
        toast_next("success", f"{username} is deactivated: their keys, tokens and sessions stop within a second.")
    return see_other(url_for("admin.people.detail", username=username))


@bp.post("/admin/people/<username>/reactivation")
def reactivate(username: str) -> Response:
    transaction(identity.update, identity.named(username), by=me(), disabled=False)
    toast_next("success", f"{username} may sign in again, and their keys work again.")
    return see_other(url_for("admin.people.detail", username=username))


@bp.get("/admin/people/<username>/deletion")
def deletion(username: str) -> Response:
    person = identity.named(username)
    return render("admin/people/deletion.html", person=person, stops=_what_stops(person))


@bp.post("/admin/people/<username>/deletion")
def delete(username: str) -> Response:
    person = identity.named(username)
    if not is_confirmed_by(person.username):
        return render("admin/people/deletion.html", status=422, person=person, fault=True, stops=_what_stops(person))
    name = person.username
    try:
        transaction(offboarding.delete, person, by=me())
    except DomainError as error:
        toast_next("danger", error.message)
        return see_other(url_for("admin.people.detail", username=username))
    toast_next("success", f"{name} is deleted. What they used stays in the ledger.")
    return see_other(url_for("admin.people.index"))


@bp.post("/admin/people/<username>/sessions/<reference>/ending")
def end_session(username: str, reference: str) -> Response:
    person = identity.named(username)
    sessions.revoke(sessions.get_own(person.id, reference))
    transaction(audit.record, me(), "session.end", "person", person.id, name=person.username)
    toast_next("success", f"The session of {person.username} is ended.")
    return see_other(url_for("admin.people.detail", username=username, section="sessions"))


@bp.post("/admin/people/<username>/tokens/revocation")
def revoke_tokens(username: str) -> Response:
    person = identity.named(username)
    try:
        transaction(tokens.revoke_of, person, by=me())
    except NotFound as error:
        toast_next("info", error.message)
    else:
        toast_next("success", f"The access tokens of {person.username} are refused from now on.")
    return see_other(url_for("admin.people.detail", username=username, section="sessions"))


def _detail(
    person: Person,
    section: str,
    status: int = 200,
    *,
    profile: ProfileForm | None = None,
    budget: BudgetForm | None = None,
    link: LinkForm | None = None,
) -> Response:
    """Answers with one section of a person. A form that was refused is shown again with its values."""
    values: dict[str, Any] = {"person": person, "section": section, "roles": ROLE_NAMES}
    match section:
        case "profile":
            values |= {
                "profile": profile or _profile(person),
                "budget": budget or _budget(person),
                "standing": budgets.standing("user", person.id),
                "figures": _figures([person.id]),
            }
        case "keys":
            listing = page_of(keys.owned_by(person))
            ids = [key.id for key in listing.items]
            values |= {
                "listing": listing,
                "standings": {one.id: one for one in budgets.standings([("key", id) for id in ids])},
                "last_used": {id: from_ms(at_ms) for id, at_ms in requests.last_use(me(), ids).items()},
            }
        case "subscriptions":
            values["listing"] = page_of(subscriptions.owned_by(person))
        case "sessions":
            values |= {
                "sessions": sessions.owned_by(person.id),
                "tokens": db.session.scalars(tokens.live_of(person)).all(),
                "identities": db.session.scalars(identities.of(person)).all(),
                "link": link or LinkForm(formdata=None, data={"issuer": current.config().oidc.issuer}),
                "provider_name": current.config().oidc.name if current.config().oidc.issuer else None,
            }
        case "history":
            entries = page_of(audit.trail(person))
            values |= {"listing": entries, "lines": lines(entries.items)}
    return render("admin/people/detail.html", status=status, **values)


def _profile(person: Person) -> ProfileForm:
    return ProfileForm(formdata=None, data=fields.told(PersonFields, person)).as_opened()


def _budget(person: Person) -> BudgetForm:
    budget = budgets.find("user", person.id)
    return BudgetForm(formdata=None, data=budget.summary() if budget else None).as_opened()


def _what_stops(person: Person) -> dict[str, int]:
    """How many keys, tokens and sessions stop working."""
    return {
        "keys": db.session.scalar(select(func.count()).select_from(keys.search(person, status="active").subquery()))
        or 0,
        "tokens": db.session.scalar(select(func.count()).select_from(tokens.live_of(person).subquery())) or 0,
        "sessions": len(sessions.owned_by(person.id)),
    }


def _figures(ids: list[str] | None) -> Figures:
    """The figures of these people, or of the whole organisation, in four queries."""
    live_keys = select(ApiKey.person_id, func.count()).where(ApiKey.revoked_at.is_(None)).group_by(ApiKey.person_id)
    live = (
        select(Subscription.person_id, func.count())
        .where(Subscription.status.in_(LIVE))
        .group_by(Subscription.person_id)
    )
    joined = select(Membership.person_id, Team.name).join_from(Membership, Team).order_by(func.lower(Team.name))
    if ids is not None:
        joined = joined.where(Membership.person_id.in_(ids))
        live_keys, live = live_keys.where(ApiKey.person_id.in_(ids)), live.where(Subscription.person_id.in_(ids))
    month = now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since = Filters(from_ms=to_ms(month))
    spent = usage_reports.by(me(), "person_id", filters=since, limit=MOST_SPENDERS, names=ids)
    names: dict[str, list[str]] = {}
    for person_id, name in db.session.execute(joined):
        names.setdefault(person_id, []).append(name)
    return Figures(
        teams=names,
        keys=dict(db.session.execute(live_keys).all()),
        subscriptions=dict(db.session.execute(live).all()),
        spent_nano={share.name: share.cost_nano for share in spent},
    )


def _export_columns(figures: Figures) -> dict[str, Any]:
    return {
        "username": lambda person: person.username,
        "email": lambda person: person.email,
        "role": lambda person: person.role,
        "groups": lambda person: person.groups,
        "teams": lambda person: figures.teams.get(person.id, []),
        "keys": lambda person: figures.keys.get(person.id, 0),
        "subscriptions": lambda person: figures.subscriptions.get(person.id, 0),
        "spent_this_month": lambda person: money.text(figures.spent_nano.get(person.id, 0)),
        "last_seen_at": lambda person: person.last_seen_at,
        "created_at": lambda person: person.created_at,
        "status": lambda person: person.status,
    }
