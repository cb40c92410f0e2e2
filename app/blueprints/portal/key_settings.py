"""What is done with a key that exists: its settings, its rotation, its pause, and its end.

Each is a page of its own, so that it works without scripts; scripts show the shorter questions in dialogs.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.blueprints.portal.key_forms import TEAM_REACHES, RotationForm, SettingsForm
from app.blueprints.portal.keys import choose_among, shown_once, subscribed, timezones
from app.blueprints.portal.person import me
from app.domain import keys
from app.domain.errors import DomainError
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.extensions import transaction
from app.web.forms import blame
from app.web.idempotency import Made, fresh_number, make_once
from app.web.render import render, see_other, toast_next


def open_on(door: Blueprint) -> None:
    door.add_url_rule("/keys/<id>/settings", "key_settings", settings)
    door.add_url_rule("/keys/<id>/settings", "change_key", change, methods=["POST"])
    door.add_url_rule("/keys/<id>/rotation", "rotation", rotation)
    door.add_url_rule("/keys/<id>/rotation", "rotate_key", rotate, methods=["POST"])
    door.add_url_rule("/keys/<id>/secrets/<secret_id>/end", "secret_end", secret_end)
    door.add_url_rule("/keys/<id>/secrets/<secret_id>/end", "end_secret", end_secret, methods=["POST"])
    door.add_url_rule("/keys/<id>/pause", "pause", pause)
    door.add_url_rule("/keys/<id>/pause", "pause_key", pause_key, methods=["POST"])
    door.add_url_rule("/keys/<id>/resumption", "resumption", resumption)
    door.add_url_rule("/keys/<id>/resumption", "resume_key", resume_key, methods=["POST"])
    door.add_url_rule("/keys/<id>/revocation", "revocation", revocation)
    door.add_url_rule("/keys/<id>/revocation", "revoke_key", revoke, methods=["POST"])


def settings(id: str) -> AnyResponse:
    key = keys.reach(me(), id, change=True)
    return _over(key) or _settings(key, SettingsForm.of(key))


def change(id: str) -> AnyResponse:
    person = me()
    key = keys.reach(person, id, change=True)
    form = SettingsForm()
    if not form.validate_on_submit():
        return _settings(key, form, 422)
    try:
        transaction(keys.update, key, by=person, **form.changes(key))
    except DomainError as error:
        blame(form, error, limit="budget", expires_at="expires_on")
        return _settings(key, form, 422)
    toast_next("success", f"The key {key.name} is changed.")
    return _page_of(key)


def rotation(id: str) -> AnyResponse:
    key = keys.reach(me(), id, change=True)
    form = RotationForm(formdata=None)
    form.once.data = fresh_number()
    return _over(key) or _rotation(key, form)


def rotate(id: str) -> AnyResponse:
    person = me()
    key = keys.reach(person, id, change=True)
    form = RotationForm()
    if not form.validate_on_submit():
        return _rotation(key, form, 422)
    overlap_s = int(form.overlap_s.data)
    try:
        made = make_once(
            person,
            form.once.data,
            lambda: Made(id, transaction(keys.rotate, key, by=person, overlap_s=overlap_s)),
        )
    except DomainError as error:
        blame(form, error)
        return _rotation(key, form, 422)
    if made.text is None:
        toast_next("info", "This form has rotated the key already. A text is shown only once; if it is lost, rotate.")
        return _page_of(key)
    return shown_once(keys.reach(person, made.id, change=True), made.text, rotated=True)


def secret_end(id: str, secret_id: str) -> AnyResponse:
    key = keys.reach(me(), id, change=True)
    found = next((secret for secret in key.secrets if secret.id == secret_id), None)
    if found is None or found.has_ended or not found.is_replaced:
        return _page_of(key)
    return render("portal/keys/secret_end.html", key=key, secret=found)


def end_secret(id: str, secret_id: str) -> AnyResponse:
    key = keys.reach(me(), id, change=True)
    return _done(key, keys.end_secret, "The old text of {} is refused now.", secret_id)


def pause(id: str) -> AnyResponse:
    key = keys.reach(me(), id, change=True)
    return _page_of(key) if key.revoked_at or key.paused_at else render("portal/keys/pause.html", key=key)


def pause_key(id: str) -> AnyResponse:
    key = keys.reach(me(), id, change=True)
    return _done(key, keys.pause, "The key {} is paused. It is refused until it is resumed.")


def resumption(id: str) -> AnyResponse:
    key = keys.reach(me(), id, change=True)
    return render("portal/keys/resumption.html", key=key) if key.paused_at and not key.revoked_at else _page_of(key)


def resume_key(id: str) -> AnyResponse:
    key = keys.reach(me(), id, change=True)
    return _done(key, keys.resume, "The key {} works again.")


def revocation(id: str) -> AnyResponse:
    """The page that asks whether it is meant; scripts show the same question in a dialog."""
    key = keys.reach(me(), id, change=True)
    return _page_of(key) if key.revoked_at else render("portal/keys/revocation.html", key=key)


def revoke(id: str) -> AnyResponse:
    key = keys.reach(me(), id, change=True)
    if request.form.get("confirm") != key.name:
        return render("portal/keys/revocation.html", status=422, key=key, fault=True)
    return _done(key, keys.revoke, "The key {} is revoked. Applications that use it are refused within a second.")


def _done(key: ApiKey, verb: Callable[..., object], words: str, *values: str) -> AnyResponse:
    """Does it, or says why not; either way back to the key's page."""
    person: Person = me()
    try:
        transaction(verb, key, *values, by=person)
    except DomainError as error:
        toast_next("danger", error.message)
    else:
        toast_next("success", words.format(key.name))
    return _page_of(key)


def _page_of(key: ApiKey) -> Response:
    return see_other(url_for("portal.key", id=key.id))


def _over(key: ApiKey) -> AnyResponse | None:
    """A revoked key has nothing to set: its page says so."""
    return _page_of(key) if key.revoked_at else None


def _settings(key: ApiKey, form: SettingsForm, status: int = 200) -> Response:
    choose_among(form, subscribed(key.person, key.team))
    if key.team_id:
        form.reach.choices = TEAM_REACHES
    return render("portal/keys/settings.html", status=status, key=key, form=form, timezones=timezones())


def _rotation(key: ApiKey, form: RotationForm, status: int = 200) -> Response:
    replaced = [secret for secret in key.secrets[1:] if not secret.has_ended]
    return render("portal/keys/rotation.html", status=status, key=key, form=form, replaced=replaced)
