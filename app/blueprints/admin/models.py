"""Models: what people subscribe to, with prices, limits and the deployments that serve them.

A price is never edited. A new price gets a date, so past charges can still be explained.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, render_template, request, url_for
from flask_wtf import FlaskForm
from wtforms import (
    BooleanField,
    DateTimeLocalField,
    Form,
    IntegerField,
    SelectField,
    StringField,
    ValidationError,
)
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import Length, NumberRange, Optional

from app import clock, directory
from app.blueprints.admin.person import me
from app.clock import now
from app.domain import catalog, fields, providers
from app.domain.catalog import CAPABILITIES, STATUSES, DeploymentSpec, Model, ModelFields
from app.domain.errors import DomainError
from app.domain.providers import Provider
from app.extensions import db, transaction
from app.metering import money
from app.metering.quantities import PRICE_MEMBERS, PRICES
from app.providers.base import CheckResult
from app.reports import usage as usage_reports
from app.reports.usage import Repriced
from app.web import exports
from app.web.forms import EditForm, Value, blame, with_inputs, words_of
from app.web.lists import all_rows, page_of, requested_sort, sorted_by_request
from app.web.render import render, see_other, toast_next
from app.workflows import catalog_changes

SPARE_ROWS = 3
MOST_ROWS = 200  # that one form can have; the domain accepts fewer
ROW = re.compile(r"deployments-(\d{1,15})-")
FAULTY = re.compile(r"deployments\[(\d+)\](?:\.(\w+))?")
PRICE = "price_"  # of the price fields
PREVIEW_DAYS = 30
ACCESSES = {"restricted": True, "open": False}


def _priced(name: str) -> Callable[[Model], str | None]:
    return lambda item: item.price.decimals()[name] if item.price else None


EXPORT_COLUMNS: dict[str, Callable[[Model], Any]] = {
    "id": lambda item: item.id,
    "name": lambda item: item.name,
    "display_name": lambda item: item.display_name,
    "status": lambda item: item.status,
    "restricted": lambda item: item.restricted,
    "available": lambda item: item.is_served,
    "capabilities": lambda item: item.capabilities,
    "features": lambda item: item.features,
    "context_window": lambda item: item.context_window,
    "max_output_tokens": lambda item: item.max_output_tokens,
    **{name: _priced(name) for name in PRICES},
    "deployments": lambda item: [f"{one.provider.name}:{one.upstream_model}" for one in item.deployments],
    "created_at": lambda item: item.created_at,
    "updated_at": lambda item: item.updated_at,
}

bp = Blueprint("models", __name__)


def _price(label: str, help: str) -> StringField:
    return StringField(label, [_amount], description=help, render_kw={"inputmode": "decimal", "autocomplete": "off"})


def _amount(form: FlaskForm, field: StringField) -> None:
    """A validator that checks every price, so that all invalid ones are reported together."""
    try:
        money.parse((field.data or "").strip() or 0)
    except money.MoneyError as error:
        raise ValidationError(f"This price is not usable: {error}.") from None


@with_inputs(ModelFields)
class ModelForm(EditForm):
    """A model. Its deployments are separate rows."""

    deployments: Deployments | None = None
    bands: Mapping[str, Any] = {}  # of the price, which the form does not show

    price_from = DateTimeLocalField(
        "Effective from",
        [Optional()],
        format=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
        description="In UTC. Empty for now; a later time plans a change of price.",
    )

    def values(self) -> Iterator[Value]:
        yield from super().values()
        if self.deployments is not None:
            yield self.deployments.value()

    @property
    def prices(self) -> dict[str, Any]:
        """The price as the domain takes it, decimals by name."""
        return {**self.amounts, **self.bands}

    @property
    def amounts(self) -> dict[str, str | None]:
        return {name: (self[PRICE + name].data or "").strip() or None for name in PRICES}

    @property
    def from_at(self) -> datetime | None:
        """When a planned price takes effect; None for now."""
        moment: datetime | None = self.price_from.data if "price_from" in self else None
        return moment.replace(tzinfo=UTC) if moment else None

    def to_changes(self) -> dict[str, Any]:
        """The arguments of `catalog.create_model` and, without the name, of `update_model`, except the deployments."""
        return {**self.entered(), "price": self.prices}


for _member in PRICE_MEMBERS:
    setattr(ModelForm, PRICE + _member.name, _price(_member.title, _member.help))


class DeploymentRow(Form):
    """One deployment. A row with neither provider nor model is a spare one."""

    provider_id = SelectField("Provider", validate_choice=False)
    upstream_model = StringField(
        "Model at the provider",
        [Length(max=200, message="Use at most %(max)d characters.")],
        render_kw={"autocomplete": "off", "spellcheck": "false", "maxlength": 200},
    )
    priority = IntegerField("Priority", [Optional(), NumberRange(0, 1000, "Give 0 to 1000.")], default=0)
    weight = IntegerField("Weight", [Optional(), NumberRange(0, 1000, "Give 0 to 1000.")], default=1)
    remove = BooleanField("Remove")

    @property
    def is_spare(self) -> bool:
        return not self.provider_id.data and not (self.upstream_model.data or "").strip()

    def spec(self, settings: dict[str, Any]) -> DeploymentSpec:
        return DeploymentSpec(
            provider_id=self.provider_id.data or "",
            upstream_model=(self.upstream_model.data or "").strip(),
            priority=0 if self.priority.data is None else self.priority.data,
            weight=1 if self.weight.data is None else self.weight.data,
            settings=settings,
        )


class ModelTrialForm(FlaskForm):
    """Tests a model's first deployment."""

    prompt = StringField(
        "Question",
        [Length(max=1000, message="Use at most %(max)d characters.")],
        description="Sent to the model when given. It may cost a little.",
        render_kw={"autocomplete": "off"},
    )


class Deployments:
    """The rows of one form: those that were `sent`, or those of a model and some spare ones."""

    def __init__(self, item: Model | None = None, *, sent: bool = False) -> None:
        self.settings = (
            {(one.provider_id, one.upstream_model): one.settings for one in item.deployments} if item else {}
        )
        if sent:
            numbers = sorted({int(found[1]) for name in request.form if (found := ROW.match(name))})[:MOST_ROWS]
            self.rows = [DeploymentRow(request.form, prefix=_prefix(number)) for number in numbers]
        else:
            self.rows = [
                DeploymentRow(obj=one, prefix=_prefix(number))
                for number, one in enumerate(item.deployments if item else ())
            ]
            self.rows += [DeploymentRow(prefix=_prefix(len(self.rows) + spare)) for spare in range(SPARE_ROWS)]
        choices = _choices(list(db.session.scalars(providers.search())))
        for row in self.rows:
            row.provider_id.choices = choices

    @property
    def used(self) -> list[DeploymentRow]:
        return [row for row in self.rows if not row.is_spare and not row.remove.data]

    def validate(self, form: FlaskForm) -> bool:
        """Whether all used rows are complete. Their errors are also added to the form."""
        for row in self.used:
            row.validate()
            if not row.provider_id.data:
                _fault(row, "provider_id", "Choose a provider.")
            elif not (row.upstream_model.data or "").strip():
                _fault(row, "upstream_model", "Give the model's name there.")
        return self._add_errors_to(form)

    def blame(self, form: FlaskForm, error: DomainError) -> bool:
        """Adds a refusal of the domain to its row. Returns False if it is not about a row."""
        match = FAULTY.fullmatch(error.field or "")
        if match is None or int(match[1]) >= len(self.used):
            return False
        row = self.used[int(match[1])]
        _fault(row, match[2] if match[2] in row else "upstream_model", error.message)
        self._add_errors_to(form)
        return True

    def value(self) -> Value:
        """All used rows as one value of the form."""
        data, words = [], []
        for row in self.used:
            spec = row.spec({})
            data.append([spec.provider_id, spec.upstream_model, spec.priority, spec.weight])
            where = words_of(row.provider_id)
            words.append(f"{spec.upstream_model} at {where}, priority {spec.priority}, weight {spec.weight}")
        return Value("deployments", "Deployments", sorted(data), "; ".join(words))

    def specs(self) -> list[DeploymentSpec]:
        return [
            row.spec(self.settings.get((row.provider_id.data, (row.upstream_model.data or "").strip()), {}))
            for row in self.used
        ]

    def _add_errors_to(self, form: FlaskForm) -> bool:
        for number, row in enumerate(self.used, 1):
            for faults in row.errors.values():
                form.form_errors += [f"Deployment {number}: {fault}" for fault in faults]
        return not any(row.errors for row in self.used)


@bp.get("/admin/models")
def index() -> Response:
    search = request.args.get("q", "").strip()[:200]
    status = request.args.get("status", "")
    status = status if status in STATUSES else ""
    capability = request.args.get("capability", "")
    capability = capability if capability in CAPABILITIES else ""
    access = request.args.get("access", "")
    access = access if access in ACCESSES else ""
    upstreams = {item.id: item.name for item in db.session.scalars(providers.search())}
    provider = request.args.get("provider", "")
    provider = provider if provider in upstreams else ""
    columns = catalog_changes.columns()
    query = sorted_by_request(
        catalog.all_models(
            search=search or None,
            status=status or None,
            capability=capability or None,
            restricted=ACCESSES.get(access),
            provider_id=provider or None,
        ),
        columns,
    )
    if file_format := exports.requested_format():
        return exports.answer(file_format, "models", EXPORT_COLUMNS, all_rows(query))
    listing = page_of(query.options(catalog.with_deployments()))
    return render(
        "admin/models/index.html",
        "admin/models/_list.html",
        listing=listing,
        search=search,
        chosen=status,
        statuses=STATUSES,
        capability=capability,
        capabilities=CAPABILITIES,
        access=access,
        provider=provider,
        upstreams=upstreams,
        sort=requested_sort(columns),
        subscribers=catalog_changes.subscribers([item.id for item in listing.items]),
        key_counts=catalog_changes.key_counts(listing.items),
    )


@bp.get("/admin/models/new")
def new() -> Response:
    return _new_page(_new_form(formdata=None), Deployments())


@bp.get("/admin/models/new/deployment")
def deployment() -> str:
    """One more spare row, for scripts. Its number is higher than that of any existing row."""
    row = DeploymentRow(prefix=_prefix(clock.now_ms()))
    row.provider_id.choices = _choices(list(db.session.scalars(providers.search())))
    return render_template("admin/models/_deployment.html", row=row)


@bp.post("/admin/models")
def create() -> Response:
    form, deployments = _new_form(), Deployments(sent=True)
    if not all([form.validate_on_submit(), deployments.validate(form)]):
        return _new_page(form, deployments, 422)
    try:
        model = transaction(
            catalog.create_model,
            by=me(),
            deployments=deployments.specs(),
            **form.to_changes(),
        )
    except DomainError as error:
        return _new_page(form, deployments, _blame(form, deployments, error))
    toast_next("success", f"{model.name} is added.")
    return see_other(url_for("admin.models.detail", id=model.id))


@bp.get("/admin/models/<id>")
def detail(id: str) -> Response:
    item = catalog.model_by_id(id)
    form, deployments = _filled(item)
    return _page(item, form, deployments)


@bp.post("/admin/models/<id>")
def change(id: str) -> Response:
    item = catalog.model_by_id(id)
    form, deployments = _sent(item)
    if not all([form.validate_on_submit(), deployments.validate(form)]):
        return _page(item, form, deployments, 422)
    effects = _effects(item, form)
    if effects and request.form.get("confirmed") != _mark(effects):
        return _page(item, form, deployments, 409, effects=effects)
    before = item.price.id if item.price else None
    from_at = form.from_at
    changes = form.to_changes() if from_at is None else {**form.to_changes(), "price": catalog.UNSET}
    prices, specs = form.prices, deployments.specs()

    def save() -> bool:
        catalog_changes.change(item, by=me(), deployments=specs, **changes)
        return from_at is not None and catalog.set_price(item, by=me(), price=prices, from_at=from_at) is not None

    try:
        planned = form.save(lambda: _filled(catalog.model_by_id(id))[0], save)
    except DomainError as error:
        return _page(item, form, deployments, _blame(form, deployments, error))
    repriced = (item.price.id if item.price else None) != before
    words = f" The new price holds from {from_at:%Y-%m-%d %H:%M} UTC." if planned else ""
    words = " The new price holds from now on." if repriced else words
    toast_next("success", f"{item.name} is saved.{words}")
    return see_other(url_for("admin.models.detail", id=id))


@bp.post("/admin/models/<id>/price-preview")
def price_preview(id: str) -> Response:
    """What the form's prices would have cost in the last 30 days. Nothing is saved, and the form stays as it is."""
    item = catalog.model_by_id(id)
    form, deployments = _sent(item)
    form.validate_on_submit()
    faults = [name for name in form.errors if name is None or name == "csrf_token" or name.startswith(PRICE)]
    if faults:
        return _page(item, form, deployments, 422, fragment=True)
    amounts = {name: money.parse(text) for name, text in form.amounts.items() if text is not None}
    rows = usage_reports.repriced(me(), item.name, directory.Price(id="preview", rates=amounts), days=PREVIEW_DAYS)
    return _page(item, form, deployments, fragment=True, preview=_with_total(rows))


def _with_total(rows: list[Repriced]) -> list[Repriced]:
    """Returns the rows and a total without a kind of API; nothing for a model without usage."""
    total = Repriced(api_type="", would_nano=sum(row.would_nano for row in rows))
    for row in rows:
        total.add(row)
    return [*rows, total] if rows else []


@bp.post("/admin/models/<id>/test")
def test(id: str) -> Response:
    """Tests the model's first deployment now. It changes nothing, so the response is the page itself."""
    item = catalog.model_by_id(id)
    form = ModelTrialForm()
    if not form.validate_on_submit():
        return _test_page(item, form, 422)
    if not item.deployments:
        form.form_errors.append("No provider serves this model yet.")
        return _test_page(item, form, 422)
    first = item.deployments[0]
    upstream, name = first.provider, first.upstream_model
    db.session.expunge(upstream)
    db.session.rollback()  # the upstream may be slow; no transaction must stay open meanwhile
    result: CheckResult | None = None
    try:
        result = providers.check(upstream, model=name, prompt=(form.prompt.data or "").strip() or None)
    except DomainError as error:  # the settings no longer satisfy the adapter
        form.form_errors.append(error.message)
    return _test_page(catalog.model_by_id(id), form, 200 if result else 422, result)


@bp.get("/admin/models/<id>/deletion")
def deletion(id: str) -> Response:
    """The confirmation page, which says who is affected."""
    return _deletion_page(catalog.model_by_id(id))


@bp.post("/admin/models/<id>/deletion")
def delete(id: str) -> Response:
    item = catalog.model_by_id(id)
    name = item.name
    if request.form.get("confirm") != name:
        return _deletion_page(item, 422)
    transaction(catalog_changes.delete, item, by=me())
    toast_next("success", f"{name} is deleted.")
    return see_other(url_for("admin.models.index"))


def _new_form(**arguments: Any) -> ModelForm:
    form = ModelForm(**arguments)
    del form.price_from  # a first price takes effect immediately
    return form


def _new_page(form: ModelForm, deployments: Deployments, status: int = 200) -> Response:
    return render("admin/models/new.html", status=status, form=form, deployments=deployments)


def _page(
    item: Model,
    form: ModelForm,
    deployments: Deployments,
    status: int = 200,
    *,
    fragment: bool = False,
    preview: list[Repriced] | None = None,
    effects: Sequence[str] = (),
) -> Response:
    return render(
        "admin/models/detail.html",
        "admin/models/_preview.html" if fragment else None,
        status=status,
        model=item,
        form=form,
        deployments=deployments,
        preview=preview,
        effects=effects,
        confirmed=_mark(effects),
        moment=now(),
        test=ModelTrialForm(formdata=None),
        **_effect(item),
    )


def _test_page(item: Model, form: ModelTrialForm, status: int, result: CheckResult | None = None) -> Response:
    return render(
        "admin/models/test.html", "admin/models/_test.html", status=status, model=item, test=form, result=result
    )


def _deletion_page(item: Model, status: int = 200) -> Response:
    return render("admin/models/deletion.html", status=status, model=item, fault=status == 422, **_effect(item))


def _effect(item: Model) -> dict[str, Any]:
    """How many subscriptions and keys a change of this model affects."""
    affected = catalog_changes.effect(item)
    return {"subscribers": affected.live, "key_count": affected.keys}


def _effects(item: Model, form: ModelForm) -> list[str]:
    """What saving this form would do to people who use the model, in sentences; nothing if it affects nobody."""
    affected = catalog_changes.effect(item)
    changes = form.to_changes()
    status = changes["status"]
    sentences = []
    if changes["restricted"] and not item.restricted and affected.active:
        many = _counted(affected.active, "active subscription")
        sentences.append(f"Restricting it turns {many} pending: calls are refused until you approve them.")
    if affected.live and status != item.status and status in ("hidden", "disabled"):
        whom = f"{_counted(affected.live, 'live subscription')} and {_counted(affected.keys, 'key')}"
        stops = "calls are refused" if status == "disabled" else "they go on working, but nobody else finds the model"
        sentences.append(f"{'Disabling' if status == 'disabled' else 'Hiding'} it hits {whom}: {stops}.")
    return sentences


def _mark(effects: Sequence[str]) -> str:
    """The digest of what a confirmation confirms. If the effects change, the page asks again."""
    return hashlib.sha256("\n".join(effects).encode()).hexdigest()[:16]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _filled(item: Model) -> tuple[ModelForm, Deployments]:
    """Returns the form of a model with its current values, and its deployments."""
    price = item.price.decimals() if item.price else {}
    data = {PRICE + name: amount for name, amount in price.items()} | fields.told(ModelFields, item)
    deployments = Deployments(item)
    form = _change_form(item, deployments, formdata=None, data=data)
    form.beside = [one.settings for one in item.deployments]
    return form.as_opened(), deployments


def _sent(item: Model) -> tuple[ModelForm, Deployments]:
    deployments = Deployments(item, sent=True)
    return _change_form(item, deployments), deployments


def _change_form(item: Model, deployments: Deployments, **arguments: Any) -> ModelForm:
    form = ModelForm(**arguments)
    form.deployments = deployments
    form.bands = item.price.bands() if item.price else {}
    del form.name  # applications call the model by its name
    return form


def _blame(form: ModelForm, deployments: Deployments, error: DomainError) -> int:
    if deployments.blame(form, error):
        return 422
    return blame(form, error, **{"from": "price_from"}, **{f"price.{name}": PRICE + name for name in PRICES})


def _choices(all_providers: Sequence[Provider]) -> list[SelectChoice]:
    words = [
        SelectChoice(provider.id, provider.name if provider.status == "active" else f"{provider.name} (disabled)")
        for provider in all_providers
    ]
    return [SelectChoice("", "Choose …"), *words]


def _fault(row: DeploymentRow, name: str, message: str) -> None:
    field = row[name]
    field.errors = [*field.errors, message]


def _prefix(number: int) -> str:
    return f"deployments-{number}"
