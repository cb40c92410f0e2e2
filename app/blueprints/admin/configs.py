"""Saved configurations: save the present state, compare, activate, export, and import a document after a preview."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response, request, url_for
from flask_wtf import FlaskForm
from wtforms import BooleanField, TextAreaField
from wtforms.validators import InputRequired

from app.blueprints.admin.person import me
from app.domain import fields, saved_configs
from app.domain.errors import DomainError
from app.domain.saved_configs import SavedConfig, SavedConfigFields
from app.extensions import db, transaction
from app.web.forms import EditForm, blame, with_inputs
from app.web.lists import filters_from_request, list_page
from app.web.render import render, see_other, toast_next
from app.workflows import config_changes, config_document
from app.workflows.config_changes import Outcome

CURRENT = "current"

bp = Blueprint("configs", __name__)


@with_inputs(SavedConfigFields)
class ConfigForm(EditForm):
    """What people say of a saved configuration."""

    @classmethod
    def of(cls, item: SavedConfig) -> ConfigForm:
        return cls(formdata=None, data=fields.told(SavedConfigFields, item)).as_opened()


class ImportForm(FlaskForm):
    """A document, and whether what it does not name goes."""

    document = TextAreaField(
        "Configuration",
        [InputRequired("Paste a configuration.")],
        description="In JSON, as it is exported. Secrets are not part of it: providers keep theirs.",
        render_kw={"spellcheck": "false", "autocomplete": "off"},
    )
    prune = BooleanField("Delete the providers and models that it does not name")


@bp.get("/admin/configs")
def index() -> Response:
    search = filters_from_request(longest=100).search
    return list_page("admin/configs", saved_configs.search(search), search=search)


@bp.get("/admin/configs/new")
def new() -> Response:
    return _new(ConfigForm(formdata=None))


@bp.post("/admin/configs")
def create() -> Response:
    form = ConfigForm()
    if not form.validate_on_submit():
        return _new(form, 422)
    try:
        item = transaction(config_changes.save, by=me(), **_values(form))
    except DomainError as error:
        return _new(form, blame(form, error))
    toast_next("success", f"The present configuration is saved as {item.name}.")
    return see_other(url_for("admin.configs.detail", id=item.id))


@bp.get("/admin/configs/export")
def export() -> Response:
    transaction(config_changes.record_export, None, by=me())
    return _file(config_document.present(), "portico")


@bp.get("/admin/configs/import")
def preview() -> Response:
    return _import(ImportForm(formdata=None))


@bp.post("/admin/configs/import")
def import_() -> Response:
    """Shows what a document would change, or with `act` carries it out."""
    form, carries_out = ImportForm(), request.form.get("act") == "import"
    if not form.validate_on_submit():
        return _import(form, status=422)
    try:
        document = json.loads(form.document.data or "")
    except (ValueError, RecursionError):
        form.document.errors = ["This is not JSON."]
        return _import(form, status=422)
    try:
        outcome = config_changes.import_document(
            document, by=me(), dry_run=not carries_out, prune=bool(form.prune.data)
        )
    except DomainError as error:
        place = f"{error.field}: " if error.field else ""
        form.document.errors = [f"{place}{error.message}"]
        return _import(form, status=error.status)
    if not carries_out:
        return _import(form, outcome)
    _tell(outcome, "The configuration is imported.", "Everything was so already. Nothing was changed.")
    previous = outcome.previous_id
    return see_other(url_for("admin.configs.detail", id=previous) if previous else url_for("admin.configs.index"))


@bp.get("/admin/configs/<id>")
def detail(id: str) -> Response:
    item = saved_configs.get(id)
    return _detail(item, ConfigForm.of(item))


@bp.post("/admin/configs/<id>")
def change(id: str) -> Response:
    item, form = saved_configs.get(id), ConfigForm()
    if not form.validate_on_submit():
        return _detail(item, form, 422)
    try:
        form.save(lambda: ConfigForm.of(item), saved_configs.update, item, by=me(), **_values(form))
    except DomainError as error:
        return _detail(item, form, blame(form, error))
    toast_next("success", f"{item.name} is saved.")
    return see_other(url_for("admin.configs.detail", id=id))


@bp.get("/admin/configs/<id>/export")
def export_one(id: str) -> Response:
    item = saved_configs.get(id)
    document, name = item.document, item.name
    transaction(config_changes.record_export, item, by=me())
    return _file(document, name)


@bp.get("/admin/configs/<id>/activation")
def activation(id: str) -> Response:
    """The page that shows what activating it changes, and asks."""
    item = saved_configs.get(id)
    return render("admin/configs/activation.html", item=item, changes=config_changes.effect_of(item))


@bp.post("/admin/configs/<id>/activation")
def activate(id: str) -> Response:
    item = saved_configs.get(id)
    try:
        outcome = transaction(config_changes.activate, item, by=me())
    except DomainError as error:
        toast_next("danger", f"Nothing was changed. {error.message}")
        return see_other(url_for("admin.configs.detail", id=id))
    _tell(outcome, f"{item.name} is active.", f"{item.name} is active. Nothing had to be changed.")
    return see_other(url_for("admin.configs.detail", id=outcome.previous_id))


@bp.get("/admin/configs/<id>/deletion")
def deletion(id: str) -> Response:
    """The confirmation page."""
    return render("admin/configs/deletion.html", item=saved_configs.get(id))


@bp.post("/admin/configs/<id>/deletion")
def delete(id: str) -> Response:
    item = saved_configs.get(id)
    name = item.name
    try:
        transaction(saved_configs.remove, item, by=me())
    except DomainError as error:
        toast_next("warning", error.message)
        return see_other(url_for("admin.configs.detail", id=id))
    toast_next("success", f"{name} is deleted.")
    return see_other(url_for("admin.configs.index"))


def _values(form: ConfigForm) -> dict[str, Any]:
    return {field.name: form[field.name].data or "" for field in fields.fields_of(SavedConfigFields)}


def _tell(outcome: Outcome, done: str, same: str) -> None:
    missing = ", ".join(sorted({one.provider for one in outcome.missing_secrets}))
    if missing:
        toast_next("warning", f"{done} Disabled until their secrets are entered: {missing}.")
    else:
        toast_next("success", done if outcome.changes else same)


def _new(form: ConfigForm, status: int = 200) -> Response:
    return render("admin/configs/new.html", status=status, form=form)


def _import(form: ImportForm, outcome: Outcome | None = None, status: int = 200) -> Response:
    return render("admin/configs/import.html", status=status, form=form, outcome=outcome)


def _detail(item: SavedConfig, form: ConfigForm, status: int = 200) -> Response:
    """A saved configuration, with what activating it would change now, or where the state is that of `against`."""
    others = [(one.id, one.name) for one in db.session.scalars(saved_configs.search().limit(200)) if one.id != item.id]
    chosen = request.args.get("against", "")
    against = saved_configs.get(chosen) if chosen in dict(others) else None
    return render(
        "admin/configs/detail.html",
        "admin/configs/_comparison.html",
        status=status,
        item=item,
        form=form,
        others=others,
        against=against,
        changes=config_changes.effect_of(item, against),
    )


def _file(document: config_document.Document, name: str) -> Response:
    response = Response(config_document.text(document), mimetype="application/json")
    safe = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in name).strip("-") or "portico"
    response.headers["Content-Disposition"] = f'attachment; filename="{safe}.json"'
    response.headers["Cache-Control"] = "no-store"
    return response
