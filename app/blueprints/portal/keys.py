"""API keys: create them, show their secret once, list them, and a page for each.

A key's secret is only on the page that the form which created it leads to, and only once (`app.web.one_time`).
"""

from __future__ import annotations

import base64
import re
from datetime import datetime

from flask import Blueprint, Response, current_app, request, url_for
from werkzeug.wrappers import Response as AnyResponse
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older

from app.blueprints.portal.key_forms import TEAM_REACHES, KeyForm, NewKeyForm
from app.blueprints.portal.person import me, my_team
from app.clock import from_ms
from app.domain import catalog, keys, subscriptions
from app.domain.errors import DomainError
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.teams import Team
from app.extensions import db, transaction
from app.metering import periods
from app.pages import connect
from app.pages import keys as key_pages
from app.pages.budgets import named_standings
from app.pages.clients import CLIENTS
from app.pages.history import history_lines
from app.pages.snippets import VARIABLE, Pane, base_url, first_steps, quickstart
from app.pages.usage import reader_of
from app.reports import requests
from app.reports.usage import Filters, Reader
from app.web import one_time
from app.web.forms import blame
from app.web.idempotency import Created, create_once, fresh_number
from app.web.links import url_if_served
from app.web.lists import list_page
from app.web.render import render, see_other, toast_next
from app.web.request_cache import memberships, role_in

LAST = 50  # requests on a key's page
HISTORY = 20  # entries of the history there
SECRETS = 10  # secrets there; more only if they still work
READ_ONLY = "Read-only access: your role can’t change keys."
REVOKED = "A revoked key cannot be changed any more."
CREDIT = "admin.credits.new"
CONTINENTS = ("Africa/", "America/", "Asia/", "Atlantic/", "Australia/", "Europe/", "Indian/", "Pacific/")


bp = Blueprint("keys", __name__)


@bp.get("/keys")
def index() -> Response:
    person, filters = me(), key_pages.filters_from_request()
    return list_page(
        "portal/keys",
        key_pages.filtered(keys.owned_by(person), filters),
        key_pages.COLUMNS,
        file=lambda file_format, rows: key_pages.exported(file_format, person, rows),
        page=lambda listing: {"rows": key_pages.rows(person, listing.items)},
        filters=filters,
        models=subscribed(person),
        concerns=key_pages.CONCERNS,
        statuses=keys.STATUSES,
        base_url=base_url(),
    )


@bp.get("/keys/new")
def new() -> Response:
    form = NewKeyForm(formdata=None)
    form.once.data = fresh_number()
    form.lifetime.data = str(keys.default_lifetime_days() or "never")
    team = my_team(request.args.get("team"))
    model_name = request.args.get("model", "")
    if model_name in subscribed(me(), team):
        form.reach.data, form.models.data = "some", [model_name]
    return _form(form, team)


@bp.post("/keys")
def create() -> AnyResponse:
    person = me()
    form = NewKeyForm()
    team = my_team(form.team.data)
    if not form.validate_on_submit():
        return _form(form, team, 422)

    def create_key() -> Created:
        key, text = transaction(keys.create, person, by=person, team=team, **form.to_changes())
        return Created(key.id, text)

    try:
        created = create_once(person, form.once.data, create_key)
    except DomainError as error:
        blame(form, error, limit="budget", expires_at="expires_on")
        return _form(form, team, 422)
    if created.secret is None:
        toast_next(
            "info", "This form has already created its key. A key is shown only once; if it is lost, create another."
        )
        return see_other(url_for("portal.keys.detail", id=created.id))
    return lead_to_secret(keys.get_visible(person, created.id), created.secret)


@bp.get("/keys/<id>/secret")
def secret(id: str) -> Response:
    """Shows a new secret the first time that it is asked for."""
    key = keys.get_visible(me(), id, change=True)
    text = one_time.take(id)
    if text is None:
        words = "A secret is shown only once. If it is lost, rotate the key to get a new one."
        return one_time.gone(key.name, words, url_for("portal.keys.detail", id=id))
    return _with_secret(key, text)


@bp.get("/keys/<id>")
def detail(id: str) -> Response:
    person = me()
    key = keys.get_visible(person, id)
    is_own = key.person_id == person.id
    reader = reader_of(person)
    all_keys, served = "admin.keys.index", current_app.view_functions
    return render(
        "portal/keys/detail.html",
        "portal/keys/_standing.html",
        key=key,
        own=is_own,
        home=url_for(
            "portal.keys.index" if not person.sees_everything or is_own or all_keys not in served else all_keys
        ),
        locked=REVOKED if key.revoked_at else None if keys.may_change(person, key) else READ_ONLY,
        chain=[
            (name, standing.seen_by(person))
            for name, standing in named_standings(keys.paying_scopes(key))
            if standing.kind == "key" or standing.limit_nano is not None
        ],
        used=key_pages.usage_of(reader, key),
        activity_href=_activity_of(person, key),
        last=requests.newest(reader, filters=Filters(key_id=key.id), limit=LAST),
        secrets=_secrets(reader, key),
        history=history_lines(keys.history(key, limit=HISTORY)),
        credit=url_for(CREDIT, scope=f"key/{key.id}") if person.sees_everything and CREDIT in served else None,
        credit_locked=None if person.is_admin else READ_ONLY,
    )


def _activity_of(person: Person, key: ApiKey) -> str | None:
    """Returns the list of a key's requests, where this person can see them."""
    if key.person_id == person.id:
        return url_for("portal.activity.index", key=key.id)
    if person.sees_everything:
        return url_if_served("admin.activity.index", key=key.id)
    is_owner = key.team_id is not None and role_in(person, key.team_id) == "owner"
    return url_for("portal.activity.index", team=key.team_id, key=key.id) if is_owner else None


def subscribed(person: Person, team: Team | None = None) -> list[str]:
    """Returns the names of the models that a person's own keys, or their keys of a team, may list."""
    active = (
        subscriptions.owned_by(person, status="active")
        if team is None
        else subscriptions.of_team(team, status="active")
    )
    return sorted(db.session.scalars(active.with_only_columns(subscriptions.Subscription.model_name)))


def choose_among(form: KeyForm, models: list[str]) -> None:
    """Offers these models, and those that the form already has."""
    chosen = [name for name in form.models.data or () if name not in models]
    form.models.choices = [SelectChoice(name) for name in [*models, *chosen]]


def timezones() -> list[str]:
    """The suggestions of the field. It accepts any other name of the time zone database too."""
    return ["UTC", *sorted(name for name in periods.timezones() if name.startswith(CONTINENTS))]


def lead_to_secret(key: ApiKey, secret: str) -> Response:
    """Redirects to the page that shows a new secret once."""
    address = url_for("portal.keys.secret", id=key.id)
    return one_time.show_once(key.id, secret, address, lambda text: _with_secret(key, text))


def _with_secret(key: ApiKey, secret: str) -> Response:
    """The only response that ever contains a key's secret."""
    model = catalog.find_model((key.models or subscribed(key.person, key.team) or [""])[0])
    environment = f"{VARIABLE}={secret}\nPORTICO_BASE_URL={base_url()}\n"
    response = render(
        "portal/keys/made.html",
        key=key,
        secret=secret,
        rotated=len(key.secrets) > 1,
        replaced=[old for old in key.secrets[1:] if not old.has_ended],
        panes=quickstart(model, secret) if model else first_steps(secret),
        clients=_client_panes(key, secret),
        model=model,
        base_url=base_url(),
        file_name=f"{re.sub('[^A-Za-z0-9]+', '-', key.name).strip('-').lower() or 'portico'}.env",
        file_href=f"data:text/plain;base64,{base64.b64encode(environment.encode()).decode()}",
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _client_panes(key: ApiKey, secret: str) -> list[Pane]:
    """The blocks of the clients that chat; none for a key that can't."""
    connection = connect.connection(key.person, key)
    if not connection.models or not keys.may_use(key, "chat"):
        return []
    return [
        pane._replace(path=client.path)
        for client in CLIENTS
        if client.fits == ("chat",)
        for pane in client.panes(connection.setup(client, secret))
    ]


def _form(form: NewKeyForm, team: Team | None, status: int = 200) -> Response:
    models = subscribed(me(), team)
    choose_among(form, models)
    form.team.data = team.id if team else ""
    if team:
        form.reach.choices = TEAM_REACHES
    return render(
        "portal/keys/new.html",
        "portal/keys/_new.html",
        status=status,
        form=form,
        team=team,
        memberships=memberships(me()),
        subscribed=models,
        timezones=timezones(),
    )


def _secrets(reader: Reader, key: ApiKey) -> list[tuple[keys.KeySecret, datetime | None]]:
    """Returns the key's secrets, newest first, and when each was last used. Of secrets that have ended, only the
    latest."""
    used_ms = requests.use_of_secrets(reader, key.id, {secret.id for secret in key.secrets})
    listed = [secret for position, secret in enumerate(key.secrets) if position < SECRETS or not secret.has_ended]
    return [(secret, from_ms(used_ms[secret.id]) if secret.id in used_ms else None) for secret in listed]
