"""API keys: made, shown once, watched and revoked.

A key's text is in the answer to the form that made it and nowhere else. Sending the same form again, as a reload of
that answer does, makes no second key: each form carries a number that is used once.
"""

from __future__ import annotations

import base64
import re
import secrets
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import available_timezones

from flask import Blueprint, Response, request, session, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as AnyResponse
from wtforms import (
    DateField,
    HiddenField,
    IntegerField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    ValidationError,
)
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, Length, NumberRange, Optional

from app.blueprints.portal.person import me
from app.blueprints.portal.snippets import VARIABLE, base_url, first_steps, quickstart
from app.domain import budgets, catalog, keys, subscriptions
from app.domain.errors import DomainError
from app.domain.keys import ApiKey
from app.extensions import db, now, transaction
from app.ledger import reports
from app.ledger.reports import Filters
from app.web import usage as arranged
from app.web.forms import blame
from app.web.lists import page_of
from app.web.render import render, see_other, toast_next

STATUSES = ("active", "expired", "revoked")
LIFETIMES = [
    SelectChoice("never", "Never"),
    SelectChoice("30", "In 30 days"),
    SelectChoice("60", "In 60 days"),
    SelectChoice("90", "In 90 days"),
    SelectChoice("180", "In 180 days"),
    SelectChoice("365", "In a year"),
    SelectChoice("date", "At the end of a date"),
]
PERIODS = [
    SelectChoice("day", "A day"),
    SelectChoice("week", "A week"),
    SelectChoice("month", "A month"),
    SelectChoice("total", "In total, without end"),
]
REACHES = [
    SelectChoice("all", "All models I am subscribed to, also later ones"),
    SelectChoice("some", "Only the models ticked below"),
]
CONTINENTS = ("Africa/", "America/", "Asia/", "Atlantic/", "Australia/", "Europe/", "Indian/", "Pacific/")
LAST = 10  # requests on a key's page

USED_FORMS = "used_key_forms"  # in the session: the numbers of forms that have made a key, and which
REMEMBERED = 5


class KeyForm(FlaskForm):
    """A new key. Empty limits mean none."""

    once = HiddenField()
    name = StringField(
        "Name",
        [InputRequired("Give the key a name."), Length(max=100, message="Use at most %(max)d characters.")],
        description="What it is for, such as the application that uses it. At most 100 characters.",
        render_kw={"autocomplete": "off", "maxlength": 100},
    )
    reach = RadioField("Models", choices=REACHES, default="all")
    models = SelectMultipleField("Which models", validate_choice=False)
    lifetime = SelectField("Expires", choices=LIFETIMES, default="never")
    expires_on = DateField("Last day", [Optional()], description="Only for “At the end of a date”. Days end in UTC.")
    budget = StringField(
        "Budget",
        description="The most this key may spend in each period, such as 25 or 0.50. Empty for no limit of its own.",
        render_kw={"inputmode": "decimal", "autocomplete": "off"},
    )
    period = SelectField("Budget period", choices=PERIODS, default="month")
    timezone = StringField(
        "Time zone of the period",
        default="UTC",
        description="Days, weeks and months begin at midnight there, such as Europe/Berlin.",
        render_kw={"list": "timezones", "autocomplete": "off", "spellcheck": "false"},
    )
    rpm = IntegerField(
        "Requests a minute", [Optional(), NumberRange(1, keys.LARGEST_RATE, "Give a number of at least 1.")]
    )
    tpm = IntegerField(
        "Tokens a minute", [Optional(), NumberRange(1, keys.LARGEST_RATE, "Give a number of at least 1.")]
    )
    max_parallel = IntegerField(
        "Requests at a time", [Optional(), NumberRange(1, keys.LARGEST_RATE, "Give a number of at least 1.")]
    )

    def validate_models(self, field: SelectMultipleField) -> None:
        if self.reach.data == "some" and not field.data:
            raise ValidationError("Tick at least one model, or choose all models.")
        if self.reach.data == "all" and field.data:
            raise ValidationError("You ticked models but chose all of them. Choose “Only the models ticked below”.")

    def validate_lifetime(self, field: SelectField) -> None:
        if field.data == "date" and not any(self.expires_on.raw_data or ()):
            raise ValidationError("Give the last day beside it.")

    def validate_expires_on(self, field: DateField) -> None:
        if self.lifetime.data == "date" and field.data and field.data < now().date():
            raise ValidationError("Give today or a later day.")
        if self.lifetime.data != "date" and field.data is not None:
            raise ValidationError("To use this day, choose “At the end of a date” above.")

    def wanted(self) -> dict[str, Any]:
        """The arguments of `keys.create`."""
        amount = (self.budget.data or "").strip()
        return {
            "name": self.name.data,
            "models": self.models.data if self.reach.data == "some" else (),
            "budget": {
                "limit": amount,
                "period": self.period.data,
                "timezone": (self.timezone.data or "UTC").strip() or "UTC",
            }
            if amount
            else None,
            "rpm": self.rpm.data,
            "tpm": self.tpm.data,
            "max_parallel": self.max_parallel.data,
            "expires_at": _end(self.lifetime.data, self.expires_on.data),
        }


def open_on(door: Blueprint) -> None:
    door.add_url_rule("/keys", "keys", index)
    door.add_url_rule("/keys", "create_key", create, methods=["POST"])
    door.add_url_rule("/keys/new", "new_key", new)
    door.add_url_rule("/keys/<id>", "key", detail)
    door.add_url_rule("/keys/<id>/revocation", "revocation", revocation)
    door.add_url_rule("/keys/<id>/revocation", "revoke_key", revoke, methods=["POST"])


def index() -> Response:
    person = me()
    search = request.args.get("q", "").strip()[:100]
    status = request.args.get("status", "")
    status = status if status in STATUSES else ""
    found = page_of(keys.listed(person, search=search or None, status=status or None))
    ids = [key.id for key in found.items]
    return render(
        "portal/keys/index.html",
        "portal/keys/_list.html",
        found=found,
        search=search,
        chosen=status,
        statuses=STATUSES,
        standings={standing.id: standing for standing in budgets.standings([("key", id) for id in ids])},
        last_used={id: arranged.moment(at_ms) for id, at_ms in reports.last_use(person, ids).items()},
        base_url=base_url(),
    )


def new() -> Response:
    form = KeyForm(formdata=None)
    form.once.data = secrets.token_urlsafe(12)
    wanted = request.args.get("model", "")
    if wanted in _subscribed():
        form.reach.data, form.models.data = "some", [wanted]
    return _form(form)


def create() -> AnyResponse:
    person = me()
    form = KeyForm()
    made_before = dict(session.get(USED_FORMS, [])).get(form.once.data or "")
    if made_before is not None:
        toast_next("info", "This form has made its key already. A key is shown only once; if it is lost, make another.")
        return see_other(url_for("portal.key", id=made_before))
    if not form.validate_on_submit():
        return _form(form, 422)
    try:
        key, text = transaction(keys.create, person, by=person, **form.wanted())
    except DomainError as error:
        blame(form, error, limit="budget", expires_at="expires_on")
        return _form(form, 422)
    if form.once.data:
        session[USED_FORMS] = [*session.get(USED_FORMS, []), (form.once.data, key.id)][-REMEMBERED:]
    return _made(key, text)


def detail(id: str) -> Response:
    person = me()
    key = keys.reach(person, id)
    scopes = keys.paying_scopes(key)
    standings = budgets.standings([(kind, scope_id) for kind, scope_id, _ in scopes])
    page = reports.requests(person, filters=Filters(key_id=key.id), limit=LAST)
    return render(
        "portal/keys/detail.html",
        "portal/keys/_standing.html",
        key=key,
        own=key.person_id == person.id,
        may_revoke=key.revoked_at is None and (key.person_id == person.id or person.is_admin),
        chain=[
            (name, standing)
            for (kind, _, name), standing in zip(scopes, standings, strict=True)
            if kind == "key" or standing.limit_nano is not None
        ],
        last=page,
    )


def revocation(id: str) -> AnyResponse:
    """The page that asks whether it is meant; scripts show the same question in a dialog."""
    key = keys.reach(me(), id, change=True)
    if key.revoked_at is not None:
        return see_other(url_for("portal.key", id=id))
    return render("portal/keys/revocation.html", key=key)


def revoke(id: str) -> Response:
    person = me()
    key = keys.reach(person, id, change=True)
    if request.form.get("confirm") != key.name:
        return render("portal/keys/revocation.html", status=422, key=key, fault=True)
    name = key.name
    transaction(keys.revoke, key, by=person)
    toast_next("success", f"The key {name} is revoked. Applications that use it are refused within a second.")
    return see_other(url_for("portal.key", id=id))


def _subscribed() -> list[str]:
    """The names of the models that a new key may list."""
    return sorted(one.model_name for one in db.session.scalars(subscriptions.of(me(), status="active")))


def _form(form: KeyForm, status: int = 200) -> Response:
    subscribed = _subscribed()
    chosen = [name for name in form.models.data or () if name not in subscribed]
    form.models.choices = [SelectChoice(name) for name in [*subscribed, *chosen]]
    return render("portal/keys/new.html", status=status, form=form, subscribed=subscribed, timezones=_timezones())


def _made(key: ApiKey, text: str) -> Response:
    """The only answer that ever bears a key's text."""
    found = catalog.find_model((key.models or _subscribed() or [""])[0])
    environment = f"{VARIABLE}={text}\nPORTICO_BASE_URL={base_url()}\n"
    response = render(
        "portal/keys/made.html",
        status=201,
        key=key,
        text=text,
        panes=quickstart(found, text) if found else first_steps(text),
        model=found,
        base_url=base_url(),
        file_name=f"{re.sub('[^A-Za-z0-9]+', '-', key.name).strip('-').lower() or 'portico'}.env",
        file_href=f"data:text/plain;base64,{base64.b64encode(environment.encode()).decode()}",
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _end(lifetime: str, day: date | None) -> datetime | None:
    if lifetime == "date" and day is not None:
        return datetime.combine(day + timedelta(days=1), time(), UTC)
    return now() + timedelta(days=int(lifetime)) if lifetime.isdecimal() else None


def _timezones() -> list[str]:
    """What the field offers; any other name of the time zone database works as well."""
    return ["UTC", *sorted(name for name in available_timezones() if name.startswith(CONTINENTS))]
