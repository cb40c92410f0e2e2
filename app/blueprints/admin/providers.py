"""Providers: the upstreams, each with a form for its adapter's settings, and a test.

A stored secret never leaves the server: its field is empty, and the secret stays unchanged if the field stays empty.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from flask import Blueprint, Response, request, url_for
from flask_wtf import FlaskForm
from sqlalchemy import func
from wtforms import Form, IntegerField, PasswordField, StringField, TextAreaField
from wtforms.validators import InputRequired, Length, NumberRange

from app import providers as adapters
from app.blueprints.admin.person import me
from app.clock import from_ms
from app.domain import catalog, fields, providers, throttles
from app.domain.catalog import Deployment
from app.domain.errors import Conflict, DomainError, NotFound
from app.domain.fields import Field
from app.domain.providers import STATUSES, Provider, ProviderFields
from app.extensions import db, transaction
from app.providers.base import Adapter, CheckResult, ModelReport, Recognised, UpstreamError
from app.providers.settings import Field as Setting
from app.providers.settings import fields_of
from app.reports import performance
from app.web import exports
from app.web.forms import EditForm, Value, blame, input_of, with_inputs
from app.web.lists import filters_from_request, list_page
from app.web.render import render, see_other, toast_next
from app.workflows import model_lists, offboarding, provider_health, provider_traffic

BOUND = re.compile(r"Expected `(?:int|float)` (>=|<=) (\S+)")
LENGTH = re.compile(r"Expected `str` of length (>=|<=) (\d+)")
PREFIX = "config_"  # of the fields for the adapter's settings

COLUMNS: dict[str, Any] = {
    "name": func.lower(Provider.name),
    "kind": Provider.kind,
    "status": Provider.status,
    "created": Provider.created_at,
}

bp = Blueprint("providers", __name__)


@with_inputs(ProviderFields, without=("type",))
class ProviderForm(EditForm):
    """The fields of every provider. `form_of` adds the settings of a kind."""

    settings: Sequence[Setting] = ()

    def to_changes(self) -> dict[str, Any]:
        """The arguments of `providers.update` and, but for the kind, of `providers.create`."""
        return {**self.entered(), "config": self.config()}

    def config(self) -> dict[str, Any]:
        """The settings that were entered. Empty ones are left out, so secrets stay unchanged and defaults apply."""
        settings = {}
        for setting in self.settings:
            value = self[PREFIX + setting.name].data
            value = value.strip() if isinstance(value, str) else value
            if value is not None and value != "":
                settings[setting.name] = value
        return settings

    def blame(self, error: DomainError) -> int:
        if (error.field or "").startswith("config"):
            error.message = _in_words(error.message)
        return blame(self, error, **{f"config.{setting.name}": PREFIX + setting.name for setting in self.settings})


class TrialForm(FlaskForm):
    """Tests a provider. Without a model, the test only connects and asks which models there are."""

    model = StringField(
        "Model at the provider",
        [Length(max=200, message="Use at most %(max)d characters.")],
        description="Empty to see only whether it can be reached and accepts the credentials.",
        render_kw={"autocomplete": "off", "spellcheck": "false", "list": "test-models"},
    )
    prompt = StringField(
        "Question",
        [Length(max=1000, message="Use at most %(max)d characters.")],
        description="Sent to the model when given. It may cost a little.",
        render_kw={"autocomplete": "off"},
    )


class TensorsForm(FlaskForm):
    """Tries the settings of a deployment; nothing is saved."""

    model = StringField("Model", [Length(max=200)], render_kw={"readonly": True})
    settings = TextAreaField(
        "Deployment settings to try",
        [Length(max=100_000)],
        description="A JSON object, as in a deployment's settings. Nothing is saved.",
        render_kw={"rows": 8, "spellcheck": "false"},
    )


class RankForm(Form):
    """Priority and weight of one deployment."""

    priority = IntegerField("Priority", [InputRequired("Enter 0 to 1000."), NumberRange(0, 1000, "Enter 0 to 1000.")])
    weight = IntegerField("Weight", [InputRequired("Enter 0 to 1000."), NumberRange(0, 1000, "Enter 0 to 1000.")])


class Ranks(EditForm):
    """The deployments of one provider, each with its own small form."""

    rows: Sequence[tuple[Deployment, RankForm]] = ()

    @classmethod
    def of(cls, item: Provider, *, sent: bool = False) -> Ranks:
        """The rows as stored, or as sent."""
        form = cls() if sent else cls(formdata=None)
        form.rows = [
            (one, RankForm(request.form if sent else None, obj=one, prefix=f"{one.id}-"))
            for one in catalog.deployments_of(item)
        ]
        return form if sent else form.as_opened()

    def values(self) -> Iterator[Value]:
        for one, form in self.rows:
            data = [form.priority.data, form.weight.data]
            words = f"Priority {form.priority.data}, weight {form.weight.data}"
            yield Value(one.id, f"{one.model.name} ({one.upstream_model})", data, words)

    def validate(self, extra_validators: Any = None) -> bool:
        faulty = [one for one, form in self.rows if not form.validate()]
        return super().validate(extra_validators) and not faulty

    def to_changes(self) -> dict[str, tuple[int, int]]:
        return {one.id: (form.priority.data or 0, form.weight.data or 0) for one, form in self.rows}


def form_of(kind: type[Adapter], stored: Mapping[str, Any]) -> type[ProviderForm]:
    """Returns the form of a kind. `stored` has the masks of secrets and the names of variables."""
    settings = fields_of(kind.Settings)
    inputs = {
        PREFIX + setting.name: _field_of(setting, stored.get(setting.name) if setting.kept else None)
        for setting in settings
    }
    return cast("type[ProviderForm]", type("ProviderFormOfKind", (ProviderForm,), {**inputs, "settings": settings}))


@bp.get("/admin/providers")
def index() -> Response:
    titles = _titles()
    served = catalog.models_by_provider()
    filters = filters_from_request(status=STATUSES, kind=titles)
    return list_page(
        "admin/providers",
        providers.search(status=filters["status"], search=filters.search, kind=filters["kind"]),
        COLUMNS,
        file=lambda file_format, rows: exports.answer(file_format, "providers", _export_columns(served), rows),
        page=lambda listing: {
            "recent": performance.by("provider_id", [item.id for item in listing.items]),
            **_health(listing.items),
        },
        search=filters.search,
        chosen=filters["status"],
        statuses=STATUSES,
        kind=filters["kind"],
        served=served,
        titles=titles,
    )


@bp.get("/admin/providers/new")
def new() -> Response:
    """First asks for the kind, then shows its form. `like` is another provider, whose settings without secrets fill the
    form."""
    kind = request.args.get("kind", "")
    if kind not in adapters.kinds():
        return render("admin/providers/kinds.html", kinds=[(name, adapters.adapter(name)) for name in adapters.kinds()])
    adapter = adapters.adapter(kind)
    data: dict[str, Any] = {"name": adapter.title}
    if request.args.get("like"):
        model = providers.get(request.args["like"])
        data = {"name": f"{model.name[:90]} copy", "status": "disabled"}
        if model.kind == kind:
            data |= _settings_to_show(model)
    return _new_page(kind, form_of(adapter, {})(formdata=None, data=data))


@bp.post("/admin/providers")
def create() -> Response:
    kind = request.form.get("kind", "")
    if kind not in adapters.kinds():
        raise NotFound("This kind of provider does not exist.")
    form = form_of(adapters.adapter(kind), {})()
    if not form.validate_on_submit():
        return _new_page(kind, form, 422)
    try:
        provider = transaction(providers.create, by=me(), kind=kind, **form.to_changes())
    except DomainError as error:
        form.blame(error)
        return _new_page(kind, form, 422)
    toast_next("success", f"{provider.name} is added. Test whether it answers.")
    return see_other(url_for("admin.providers.detail", id=provider.id))


@bp.get("/admin/providers/<id>")
def detail(id: str) -> Response:
    item = providers.get(id)
    return _page(item, _stored_form(item))


@bp.post("/admin/providers/<id>")
def change(id: str) -> Response:
    item = providers.get(id)
    form = _form_for(item)()
    if not form.validate_on_submit():
        return _page(item, form, 422)
    try:
        form.save(lambda: _stored_form(providers.get(id)), providers.update, item, by=me(), **form.to_changes())
    except DomainError as error:
        return _page(item, form, form.blame(error))
    toast_next("success", f"{item.name} is saved.")
    return see_other(url_for("admin.providers.detail", id=id))


@bp.post("/admin/providers/<id>/deployments")
def weigh(id: str) -> Response:
    """Sets priority and weight of the provider's deployments, all rows together."""
    item = providers.get(id)
    rows = Ranks.of(item, sent=True)
    if not rows.validate():
        return _page(item, _stored_form(item), 422, rows=rows)
    ranks = rows.to_changes()
    try:
        changed = rows.save(lambda: Ranks.of(item), catalog.weigh, item, by=me(), wanted=ranks)
    except DomainError as error:
        return _page(item, _stored_form(item), blame(rows, error), rows=rows)
    toast_next("success", f"{changed} of {len(ranks)} deployments changed." if changed else "Nothing was changed.")
    return see_other(url_for("admin.providers.detail", id=id, _anchor="deployments"))


@bp.get("/admin/providers/<id>/status")
def switching(id: str) -> Response:
    """The page that confirms switching a provider off or on, and says which models it stops."""
    item = providers.get(id)
    return render("admin/providers/switching.html", **_about(item), stopped=catalog.only_served_by(item))


@bp.post("/admin/providers/<id>/status")
def switch(id: str) -> Response:
    item = providers.get(id)
    new_status = request.form.get("status", "")
    if new_status not in STATUSES:
        raise NotFound("This status does not exist.")
    transaction(providers.switch, item, new_status, by=me())
    toast_next("success", f"{item.name} is {'switched on' if new_status == 'active' else 'disabled'}.")
    return see_other(url_for("admin.providers.detail", id=id))


@bp.post("/admin/providers/<id>/test")
def test(id: str) -> Response:
    """Tests the upstream now. It changes nothing, so the response is the page itself."""
    item = providers.get(id)
    form = TrialForm()
    if not form.validate_on_submit():
        return _test_page(item, form, 422)
    throttles.count("test", me().id, throttles.A_PERSON)
    db.session.expunge(item)
    db.session.rollback()  # the upstream may be slow; no transaction must stay open meanwhile
    result: CheckResult | None = None
    try:
        result = providers.check(item, model=_text(form.model.data), prompt=_text(form.prompt.data))
    except DomainError as error:  # the settings no longer satisfy the adapter
        form.form_errors.append(error.message)
    return _test_page(providers.get(id), form, 200 if result else 422, result)


@bp.get("/admin/providers/<id>/server")
def server(id: str) -> Response:
    """How the models of the provider's server fare, as the server says now."""
    item = providers.get(id)
    if not _tells_of_its_models(item):
        raise NotFound("This kind of provider does not tell how its models fare.")
    db.session.expunge(item)
    db.session.rollback()  # the upstream may be slow; no transaction must stay open meanwhile
    reports: tuple[ModelReport, ...] = ()
    trouble: str | None = None
    try:
        reports = providers.reports(item)
    except (UpstreamError, DomainError) as error:
        trouble = error.message
    return render(
        "admin/providers/server.html",
        "admin/providers/_server.html",
        **_about(providers.get(id)),
        reports=reports,
        trouble=trouble,
    )


@bp.get("/admin/providers/<id>/tensors")
def tensors(id: str) -> Response:
    """What the tensors of a model at the server are recognised as, with settings to try."""
    item = providers.get(id)
    form = TensorsForm(request.args, meta={"csrf": False})
    if not _tells_of_its_models(item) or not form.model.data:
        raise NotFound("This model does not exist.")
    found: Recognised | None = None
    trouble: str | None = None
    stored = catalog.settings_of_deployment(item, form.model.data)
    if form.settings.data is None:
        form.settings.data = json.dumps(stored, indent=2) if stored else ""
    db.session.expunge(item)
    db.session.rollback()  # the upstream may be slow; no transaction must stay open meanwhile
    try:
        settings = json.loads(form.settings.data or "{}")
        found = providers.recognise(item, form.model.data, settings)
    except ValueError:
        trouble = "The settings are no JSON object."
    except (UpstreamError, DomainError) as error:
        trouble = error.message
    return render("admin/providers/tensors.html", **_about(providers.get(id)), form=form, found=found, trouble=trouble)


@bp.get("/admin/providers/<id>/deletion")
def deletion(id: str) -> Response:
    """The confirmation page, or the reason why the provider cannot be deleted."""
    return _deletion_page(providers.get(id))


@bp.post("/admin/providers/<id>/deletion")
def delete(id: str) -> Response:
    item = providers.get(id)
    name = item.name
    try:
        transaction(offboarding.withdraw, item, by=me())
    except Conflict:
        return _deletion_page(item, 409)
    toast_next("success", f"{name} is deleted.")
    return see_other(url_for("admin.providers.index"))


def _new_page(kind: str, form: ProviderForm, status: int = 200) -> Response:
    return render("admin/providers/new.html", status=status, kind=kind, adapter=adapters.adapter(kind), form=form)


def _stored_form(item: Provider) -> ProviderForm:
    """The provider's form with its stored values."""
    form = _form_for(item)(formdata=None, data=fields.told(ProviderFields, item) | _settings_to_show(item))
    form.beside = item.updated_at  # a secret may change behind the same mask
    return form.as_opened()


def _settings_to_show(item: Provider) -> dict[str, Any]:
    """The settings that a form shows. Secrets and the names of their variables must be entered again."""
    own = {setting.name for setting in fields_of(adapters.adapter(item.kind).Settings) if setting.kept}
    return {PREFIX + name: value for name, value in item.settings.items() if name not in own}


def _page(item: Provider, form: ProviderForm, status: int = 200, *, rows: Ranks | None = None) -> Response:
    model_list = model_lists.known([item]).get(item.id)
    found = _health([item])
    return render(
        "admin/providers/detail.html",
        status=status,
        form=form,
        **_about(item),
        rows=rows or Ranks.of(item),
        recent=performance.by("provider_id", [item.id]).get(item.id),
        test=TrialForm(formdata=None),
        health=found["health"][item.id],
        traffic=found["traffic"].get(item.id),
        stopped=catalog.only_served_by(item) if item.status != "active" else [],
        model_list=model_list,
        listed_at=from_ms(model_list.listed_at_ms) if model_list and model_list.listed_at_ms else None,
    )


def _health(items: Sequence[Provider]) -> dict[str, Any]:
    """The health and the traffic of the last hour of some providers, each by id."""
    traffic = provider_traffic.of(items)
    return {"health": provider_health.by_provider(items, traffic), "traffic": traffic}


def _test_page(item: Provider, form: TrialForm, status: int, result: CheckResult | None = None) -> Response:
    return render(
        "admin/providers/test.html",
        "admin/providers/_test.html",
        status=status,
        test=form,
        result=result,
        **_about(item),
    )


def _deletion_page(item: Provider, status: int = 200) -> Response:
    return render("admin/providers/deletion.html", status=status, **_about(item))


def _about(item: Provider) -> dict[str, Any]:
    """The values that each page of one provider shows."""
    return {
        "provider": item,
        "title_of_kind": _titles().get(item.kind, item.kind),
        "models": catalog.models_by_provider().get(item.id, []),
        "upstream_models": catalog.upstream_models_of(item),
        "tells_of_its_models": _tells_of_its_models(item),
    }


def _tells_of_its_models(item: Provider) -> bool:
    return adapters.adapter(item.kind).reports is not Adapter.reports


def _form_for(item: Provider) -> type[ProviderForm]:
    return form_of(adapters.adapter(item.kind), item.config)


def _export_columns(served: Mapping[str, Sequence[str]]) -> dict[str, Callable[[Provider], Any]]:
    return {
        "id": lambda item: item.id,
        "name": lambda item: item.name,
        "type": lambda item: item.type,
        "kind": lambda item: item.kind,
        "status": lambda item: item.status,
        "base_url": lambda item: " ".join(item.addresses) or None,
        "models": lambda item: list(served.get(item.id, ())),
        "created_at": lambda item: item.created_at,
        "updated_at": lambda item: item.updated_at,
    }


def _titles() -> dict[str, str]:
    return {kind: adapters.adapter(kind).title for kind in adapters.kinds()}


def _field_of(setting: Setting, stored: str | None) -> Any:
    """The input of one setting. The input of a secret, or of the name of its variable, is empty; `stored` is its mask
    or name."""
    if not setting.kept:
        return input_of(Field.of(setting), default=setting.default)
    required = [InputRequired("This is needed.")] if setting.required and stored is None else []
    what = "A secret" if setting.role == "secret" else "The name of a variable"
    note = f"{what} is kept ({stored}). Leave this empty to keep it; enter another to replace it."
    attributes = {"autocomplete": "new-password" if setting.role == "secret" else "off", "spellcheck": "false"}
    if stored:
        attributes["placeholder"] = "Kept; enter to replace"
    field = PasswordField if setting.role == "secret" else StringField
    return field(setting.title, required, description=note if stored else setting.help, render_kw=attributes)


def _in_words(message: str) -> str:
    """The message of an adapter's schema about a setting, in words for people."""
    if match := BOUND.match(message):
        return f"Enter a number of at {'least' if match[1] == '>=' else 'most'} {match[2].removesuffix('.0')}."
    if match := LENGTH.match(message):
        return f"Use at {'least' if match[1] == '>=' else 'most'} {match[2]} characters."
    if message.startswith("Expected `"):
        return "This value cannot be used here."
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "?")) else ".")


def _text(value: str | None) -> str | None:
    return (value or "").strip() or None
