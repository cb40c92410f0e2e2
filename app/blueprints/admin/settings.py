"""Settings: those that admins change here, those that the file or the environment decides, and a test of the mail server."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, url_for
from sqlalchemy import select
from wtforms import SelectField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older

from app import current
from app.blueprints.admin.person import me
from app.domain import catalog, deliveries, settings
from app.domain.deliveries import Undelivered
from app.domain.errors import DomainError
from app.domain.settings import KEYS, PLACES, SettingFields
from app.extensions import db
from app.web.forms import EditForm, blame, with_inputs
from app.web.render import render, see_other, toast_next

SECTIONS = {"portal": "Branding", "keys": "API keys", "gateway": "Gateway", "log": "Logs"}

bp = Blueprint("settings", __name__)


@with_inputs(SettingFields)
class SettingsForm(EditForm):
    """The settings that can be stored. Fields that the file or the environment decides are left out."""

    gateway_budget_stop_status = SelectField(
        "Status of a refusal by budget",
        coerce=int,
        choices=[SelectChoice(429, "429 Too Many Requests"), SelectChoice(402, "402 Payment Required")],
        description="For clients that speak OpenAI’s dialect. Some repeat every 429 and show no message.",
    )

    def changes(self, now: SettingFields) -> dict[str, Any]:
        """What differs from the values in force, by key; an empty field goes back to the default."""
        return {
            KEYS[name]: None if value in ("", None) else value
            for name, value in self.entered().items()
            if value != getattr(now, name) and not (value == "" and getattr(now, name) is None)
        }


@bp.get("/admin/settings")
def index() -> Response:
    return _page(_current_form())


@bp.post("/admin/settings")
def change() -> Response:
    form = _without_decided(SettingsForm())
    if not form.validate_on_submit():
        return _page(form, 422)
    changes = form.changes(settings.values())
    try:
        form.save(_current_form, settings.update, changes, by=me())
    except DomainError as error:
        return _page(form, blame(form, error, **{key: name for name, key in KEYS.items()}))
    toast_next("success", "The settings are saved." if changes else "Nothing has changed.")
    return see_other(url_for("admin.settings.index"))


@bp.post("/admin/settings/mail-test")
def send_test_mail() -> Response:
    """Sends a mail to the admin, and says what the mail server answered."""
    person = me()
    if not person.email:
        toast_next("warning", "Your account has no e-mail address to send a test to.")
        return see_other(url_for("admin.settings.index"))
    try:
        deliveries.send_test(person.email)
    except Undelivered as error:
        toast_next("danger", str(error))
    else:
        toast_next("success", f"The mail server accepted a test e-mail for {person.email}.")
    return see_other(url_for("admin.settings.index"))


def _without_decided(form: SettingsForm) -> SettingsForm:
    for name, key in KEYS.items():
        if key in current.config().decided:
            del form[name]
    return form


def _current_form() -> SettingsForm:
    values = settings.values()
    data = {name: getattr(values, name) for name in KEYS}
    return _without_decided(SettingsForm(formdata=None, data=data)).as_opened()


def _page(form: SettingsForm, status: int = 200) -> Response:
    config = current.config()
    shown = settings.all_()
    decided = {setting.key: PLACES[config.decided[setting.key]] for setting in shown if setting.key in config.decided}
    return render(
        "admin/settings/index.html",
        status=status,
        form=form,
        groups=[
            (title, [form[name] for name, key in KEYS.items() if key.startswith(f"{section}.") and name in form])
            for section, title in SECTIONS.items()
        ],
        elsewhere=[setting for setting in shown if setting.key in KEYS.values() and setting.key in decided],
        others=[setting for setting in shown if setting.key not in KEYS.values()],
        decided=decided,
        models=db.session.scalars(select(catalog.Model.name).order_by(catalog.Model.name)).all(),
        mails=deliveries.mails(),
        logos=config.logos,
        address=me().email,
    )
