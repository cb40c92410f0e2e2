"""What you can do with an existing key: its settings, rotation, pause and revocation.

Each is a page of its own and works without scripts. Scripts show the short questions in dialogs.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.blueprints.portal.key_forms import TEAM_REACHES, RotationForm, SettingsForm
from app.blueprints.portal.keys import choose_among, lead_to_secret, subscribed, timezones
from app.blueprints.portal.person import me
from app.domain import keys
from app.domain.errors import DomainError
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.extensions import transaction
from app.web.forms import blame, is_confirmed_by
from app.web.idempotency import Created, create_once, fresh_number
from app.web.render import render, see_other, toast_next

bp = Blueprint("key_settings", __name__)


@bp.get("/keys/<id>/settings")
def settings(id: str) -> AnyResponse:
    key = keys.get_visible(me(), id, change=True)
    return _page_if_revoked(key) or _settings(key, SettingsForm.of(key))


@bp.post("/keys/<id>/settings")
def change(id: str) -> AnyResponse:
    person = me()
    key = keys.get_visible(person, id, change=True)
    form = SettingsForm()
    if not form.validate_on_submit():
        return _settings(key, form, 422)
    try:
        form.save(lambda: SettingsForm.of(key), keys.update, key, by=person, **form.to_changes_of(key))
    except DomainError as error:
        return _settings(key, form, blame(form, error, limit="budget", expires_at="expires_on"))
    toast_next("success", f"The key {key.name} is changed.")
    return _page_of(key)


@bp.get("/keys/<id>/rotation")
def rotation(id: str) -> AnyResponse:
    key = keys.get_visible(me(), id, change=True)
    form = RotationForm(formdata=None)
    form.once.data = fresh_number()
    return _page_if_revoked(key) or _rotation(key, form)


@bp.post("/keys/<id>/rotation")
def rotate(id: str) -> AnyResponse:
    person = me()
    key = keys.get_visible(person, id, change=True)
    form = RotationForm()
    if not form.validate_on_submit():
        return _rotation(key, form, 422)
    overlap_s = int(form.overlap_s.data)
    try:
        created = create_once(
            person,
            form.once.data,
            lambda: Created(id, transaction(keys.rotate, key, by=person, overlap_s=overlap_s)),
        )
    except DomainError as error:
        blame(form, error)
        return _rotation(key, form, 422)
    if created.secret is None:
        toast_next(
            "info", "This form has already rotated the key. A secret is shown only once; if it is lost, rotate again."
        )
        return _page_of(key)
    return lead_to_secret(keys.get_visible(person, created.id, change=True), created.secret)


@bp.get("/keys/<id>/secrets/<secret_id>/end")
def secret_end(id: str, secret_id: str) -> AnyResponse:
    key = keys.get_visible(me(), id, change=True)
    secret = next((secret for secret in key.secrets if secret.id == secret_id), None)
    if secret is None or secret.has_ended or not secret.is_replaced:
        return _page_of(key)
    return render("portal/keys/secret_end.html", key=key, secret=secret)


@bp.post("/keys/<id>/secrets/<secret_id>/end")
def end_secret(id: str, secret_id: str) -> AnyResponse:
    key = keys.get_visible(me(), id, change=True)
    return _run(key, keys.end_secret, "The old secret of {} is now refused.", secret_id)


@bp.get("/keys/<id>/pause")
def pause(id: str) -> AnyResponse:
    key = keys.get_visible(me(), id, change=True)
    return _page_of(key) if key.revoked_at or key.paused_at else render("portal/keys/pause.html", key=key)


@bp.post("/keys/<id>/pause")
def pause_key(id: str) -> AnyResponse:
    key = keys.get_visible(me(), id, change=True)
    return _run(key, keys.pause, "The key {} is paused. It is refused until it is resumed.")


@bp.get("/keys/<id>/resumption")
def resumption(id: str) -> AnyResponse:
    key = keys.get_visible(me(), id, change=True)
    return render("portal/keys/resumption.html", key=key) if key.paused_at and not key.revoked_at else _page_of(key)


@bp.post("/keys/<id>/resumption")
def resume_key(id: str) -> AnyResponse:
    key = keys.get_visible(me(), id, change=True)
    return _run(key, keys.resume, "The key {} works again.")


@bp.get("/keys/<id>/revocation")
def revocation(id: str) -> AnyResponse:
    """The confirmation page. Scripts show the same question in a dialog."""
    key = keys.get_visible(me(), id, change=True)
    return _page_of(key) if key.revoked_at else render("portal/keys/revocation.html", key=key)


@bp.post("/keys/<id>/revocation")
def revoke(id: str) -> AnyResponse:
    key = keys.get_visible(me(), id, change=True)
    if not is_confirmed_by(key.name):
        return render("portal/keys/revocation.html", status=422, key=key, fault=True)
    return _run(key, keys.revoke, "The key {} is revoked. Applications that use it are refused within a second.")


def _run(key: ApiKey, verb: Callable[..., object], words: str, *values: str) -> AnyResponse:
    """Runs `verb` and goes back to the key's page, with a toast that says what was done or why not."""
    person: Person = me()
    try:
        transaction(verb, key, *values, by=person)
    except DomainError as error:
        toast_next("danger", error.message)
    else:
        toast_next("success", words.format(key.name))
    return _page_of(key)


def _page_of(key: ApiKey) -> Response:
    return see_other(url_for("portal.keys.detail", id=key.id))


def _page_if_revoked(key: ApiKey) -> AnyResponse | None:
    """A redirect to the page of a revoked key, which has nothing to set; None for any other key."""
    return _page_of(key) if key.revoked_at else None


def _settings(key: ApiKey, form: SettingsForm, status: int = 200) -> Response:
    choose_among(form, subscribed(key.person, key.team))
    if key.team_id:
        form.reach.choices = TEAM_REACHES
    return render("portal/keys/settings.html", status=status, key=key, form=form, timezones=timezones())


def _rotation(key: ApiKey, form: RotationForm, status: int = 200) -> Response:
    replaced = [secret for secret in key.secrets[1:] if not secret.has_ended]
    return render("portal/keys/rotation.html", status=status, key=key, form=form, replaced=replaced)
