"""A person's own account: profile, preferences, browser sessions, access tokens, credentials of providers, and their data to
take along."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, Response, g, request, url_for
from flask_wtf import FlaskForm
from wtforms import PasswordField, RadioField, SelectField, SelectMultipleField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, Length

from app import clock, current
from app.blueprints.portal.person import me
from app.domain import audit, credentials, deliveries, identities, names, preferences, sessions, tokens
from app.domain.errors import DomainError
from app.domain.person import ROLE_NAMES, THEMES, Person, covered
from app.extensions import db, transaction
from app.metering import periods
from app.web import one_time
from app.web.forms import blame
from app.web.render import render, see_other, toast_next
from app.web.request_cache import memberships
from app.workflows import personal_data

SECTIONS = {
    "profile": "Profile",
    "preferences": "Preferences",
    "sessions": "Sessions",
    "tokens": "Access tokens",
    "credentials": "Provider credentials",
}
SCOPE_TITLES = {
    "inference": "Call models as you (inference)",
    "portal": "Manage your own keys, subscriptions and usage (portal)",
    "admin": "Administer Portico (admin)",
    "models:read": "Read the models that you can call (models:read)",
    "chat": "Chats, completions and rerankings only (chat)",
    "embeddings": "Embeddings only (embeddings)",
    "audio": "Speech and transcriptions only (audio)",
    "images": "Images only (images)",
    "usage:read": "Read usage and requests only (usage:read)",
}
DAYS, USUAL_DAYS = (7, 30, 60, 90, 180, 365), 30


class PreferencesForm(FlaskForm):
    """How the portal looks for this person."""

    timezone = StringField(
        "Time zone",
        [InputRequired("Enter a time zone such as Europe/Berlin."), Length(max=64)],
        description="Usage by hour and weekday is shown in it, such as Europe/Berlin.",
        render_kw={"autocomplete": "off", "spellcheck": "false", "list": "timezones"},
    )
    theme = RadioField("Theme", choices=[SelectChoice(*theme) for theme in THEMES.items()])


class TokenForm(FlaskForm):
    """A new access token."""

    name = StringField(
        "Name",
        [InputRequired("Enter a name."), Length(max=names.LONGEST, message="Use at most %(max)d characters.")],
        description=f"What it is for, such as the name of a program. At most {names.LONGEST} characters.",
    )
    scopes = SelectMultipleField("Scopes", [InputRequired("Choose at least one scope.")])
    days = SelectField("Expires", coerce=int)


class CredentialForm(FlaskForm):
    """A new credential of a provider."""

    provider = SelectField("Provider", [InputRequired("Choose a provider.")])
    name = StringField(
        "Name",
        [InputRequired("Enter a name."), Length(max=names.LONGEST, message="Use at most %(max)d characters.")],
        description=f"At most {names.LONGEST} characters.",
        render_kw={"autocomplete": "off"},
    )
    token = PasswordField(
        "Token",
        [InputRequired("Enter a token.")],
        description="The API key or token that the provider gave you. It is stored encrypted and not shown again.",
        render_kw={"autocomplete": "off"},
    )


bp = Blueprint("account", __name__)


@bp.get("/account")
def index() -> Response:
    section = request.args.get("section", "")
    return _page(section if section in SECTIONS else "profile")


@bp.post("/account/preferences")
def choose() -> Response:
    person, form = me(), PreferencesForm()
    if not form.validate_on_submit():
        return _page("preferences", 422, preferences=form)
    try:
        transaction(
            preferences.choose, person, timezone=(form.timezone.data or "").strip(), theme=form.theme.data or ""
        )
    except DomainError as error:
        return _page("preferences", blame(form, error), preferences=form)
    toast_next("success", "Your preferences are saved.")
    return see_other(url_for("portal.account.index", section="preferences"))


@bp.post("/account/sessions/<reference>/ending")
def end_session(reference: str) -> Response:
    person = me()
    session = sessions.get_own(person.id, reference)
    sessions.revoke(session)
    transaction(audit.record, person, "session.end", "person", person.id, name=person.username)
    toast_next("success", f"{session.device} is signed out.")
    return see_other(url_for("portal.account.index", section="sessions"))


@bp.post("/account/sessions/ending")
def end_other_sessions() -> Response:
    person = me()
    sessions.end_all(person.id, but=g.browser_session.digest)
    transaction(
        audit.record, person, "session.end", "person", person.id, name=person.username, facts={"which": "all others"}
    )
    toast_next("success", "All other browsers are signed out.")
    return see_other(url_for("portal.account.index", section="sessions"))


@bp.post("/account/tokens")
def create_token() -> Response:
    """Creates an access token, which the next page shows once."""
    person, form = me(), _token_form(me())
    if not form.validate_on_submit():
        return _page("tokens", 422, form=form)
    try:
        grant = transaction(
            tokens.issue, person, by=person, scopes=form.scopes.data, name=form.name.data or "", days=form.days.data
        )
    except DomainError as error:
        return _page("tokens", blame(form, error, scope="scopes"), form=form)
    token, address = grant.token, url_for("portal.account.token", id=grant.token.id)
    return one_time.show_once(token.id, grant.access_token, address, lambda text: _with_token(token, text))


@bp.get("/account/tokens/<id>")
def token(id: str) -> Response:
    """Shows a new access token the first time that it is asked for."""
    found = tokens.get_own(me(), id)
    text = one_time.take(id)
    if text is None:
        words = "An access token is shown only once. If it is lost, revoke it and create another."
        return one_time.gone(found.name or "Access token", words, url_for("portal.account.index", section="tokens"))
    return _with_token(found, text)


@bp.get("/account/tokens/<id>/revocation")
def revocation(id: str) -> Response:
    return render("portal/account/revocation.html", token=tokens.get_own(me(), id))


@bp.post("/account/tokens/<id>/revocation")
def revoke_token(id: str) -> Response:
    person = me()
    token = tokens.get_own(person, id)
    transaction(tokens.revoke, token, by=person)
    toast_next("success", "The access token is revoked. Requests with it are refused.")
    return see_other(url_for("portal.account.index", section="tokens"))


@bp.post("/account/credentials")
def create_credential() -> Response:
    person, form = me(), _credential_form()
    if not form.validate_on_submit():
        return _page("credentials", 422, form=form)
    try:
        transaction(
            credentials.create, by=person, provider=form.provider.data, name=form.name.data or "",
            token=form.token.data or "",
        )  # fmt: skip
    except DomainError as error:
        return _page("credentials", blame(form, error), form=form)
    toast_next("success", "The credential is stored.")
    return see_other(url_for("portal.account.index", section="credentials"))


@bp.post("/account/credentials/<id>/default")
def make_default(id: str) -> Response:
    person = me()
    credential = credentials.get_own(person, id)
    transaction(credentials.make_default, credential, by=person)
    toast_next("success", f"Your calls to {credential.provider.name} now use {credential.name}.")
    return see_other(url_for("portal.account.index", section="credentials"))


@bp.get("/account/credentials/<id>/deletion")
def deletion(id: str) -> Response:
    return render("portal/account/deletion.html", credential=credentials.get_own(me(), id))


@bp.post("/account/credentials/<id>/deletion")
def delete_credential(id: str) -> Response:
    person = me()
    transaction(credentials.delete, credentials.get_own(person, id), by=person)
    toast_next("success", "The credential is deleted.")
    return see_other(url_for("portal.account.index", section="credentials"))


@bp.get("/account/export")
def export() -> Response:
    """Everything that is stored about the person, as a JSON file."""
    person = me()
    document = msgspec.json.format(msgspec.json.encode(personal_data.export(person)))
    response = Response(document, mimetype="application/json")
    name = f"portico-{person.username}-{clock.now():%Y-%m-%d}.json"
    response.headers.set("Content-Disposition", "attachment", filename=name)
    response.headers["Cache-Control"] = "no-store"
    return response


def _with_token(token: tokens.AccessToken, text: str) -> Response:
    """The only response that ever contains an access token."""
    response = render("portal/account/token.html", token=token, text=text)
    response.headers["Cache-Control"] = "no-store"
    return response


def _page(section: str, status: int = 200, **given: Any) -> Response:
    """Answers with one section. A form that was refused is shown again with its values."""
    person = me()
    values: dict[str, Any] = {}
    match section:
        case "profile":
            values = {
                "memberships": memberships(person),
                "role": ROLE_NAMES[person.role],
                "local": current.config().auth.local,
                "identities": db.session.scalars(identities.of(person)).all(),
            }
        case "preferences":
            values = {
                "preferences": PreferencesForm(formdata=None, obj=person),
                "timezones": sorted(periods.timezones()),
                "mails": deliveries.mails(),
            }
        case "sessions":
            values = {"sessions": sessions.owned_by(person.id), "here": g.browser_session.digest}
        case "tokens":
            values = {
                "tokens": db.session.scalars(tokens.live_of(person)).all(),
                "form": _token_form(person, formdata=None),
            }
        case "credentials":
            values = {
                "credentials": db.session.scalars(credentials.of(person)).all(),
                "form": _credential_form(formdata=None),
            }
    return render(
        "portal/account/index.html", status=status, person=person, section=section, sections=SECTIONS, **values | given
    )


def _credential_form(**options: Any) -> CredentialForm:
    form = CredentialForm(**options)
    form.provider.choices = [SelectChoice(one.id, one.name) for one in credentials.offered()]
    return form


def _token_form(person: Person, **options: Any) -> TokenForm:
    most = tokens.longest_days()
    form = TokenForm(data={"days": min(USUAL_DAYS, most)}, **options)
    held = covered(person.held_scopes)
    form.scopes.choices = [SelectChoice(scope, title) for scope, title in SCOPE_TITLES.items() if scope in held]
    offered = sorted({most, *(days for days in DAYS if days < most)})
    form.days.choices = [SelectChoice(days, f"In {days} days") for days in offered]
    return form
