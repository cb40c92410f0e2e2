"""Models: what people subscribe to, with prices, limits and the deployments that serve them.

A price is never edited. A new price gets a date, so past charges can still be explained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from flask import Blueprint, Response, render_template, request, url_for
from flask_wtf import FlaskForm
from wtforms import StringField
from wtforms.validators import Length

from app import directory
from app.blueprints.admin.model_form import USUAL, Deployments, ModelForm, Tiers, blame_model, filled, new_form, sent
from app.blueprints.admin.person import me
from app.clock import now
from app.domain import catalog, providers, throttles
from app.domain.catalog import CAPABILITIES, STATUSES, Model
from app.domain.errors import DomainError
from app.extensions import db, transaction
from app.metering import money
from app.metering.quantities import PRICES
from app.reports import usage as usage_reports
from app.reports.usage import Repriced
from app.web import exports
from app.web.lists import all_rows, page_of, requested_sort, sorted_by_request
from app.web.render import render, see_other, toast_next
from app.workflows import catalog_changes, inference, provider_health, route_preview

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


class ModelTrialForm(FlaskForm):
    """Calls a model."""

    prompt = StringField(
        "Question",
        [Length(max=1000, message="Use at most %(max)d characters.")],
        description="Empty for a greeting. The answer is short.",
        render_kw={"autocomplete": "off"},
    )


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
        health=provider_health.of_models(listing.items),
    )


@bp.get("/admin/models/new")
def new() -> Response:
    return _new_page(*new_form())


@bp.get("/admin/models/new/deployment")
def deployment() -> str:
    """One more spare row, for scripts."""
    return render_template("admin/models/_deployment.html", row=Deployments.spare())


@bp.get("/admin/models/new/tier")
def tier() -> str:
    """One more spare service tier, for scripts."""
    return render_template("admin/models/_tier.html", row=Tiers.spare(), usual=USUAL)


@bp.post("/admin/models")
def create() -> Response:
    form, deployments = new_form(sent=True)
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
        return _new_page(form, deployments, blame_model(form, deployments, error))
    toast_next("success", f"{model.name} is added.")
    return see_other(url_for("admin.models.detail", id=model.id))


@bp.get("/admin/models/<id>")
def detail(id: str) -> Response:
    item = catalog.model_by_id(id)
    form, deployments = filled(item)
    return _page(item, form, deployments)


@bp.post("/admin/models/<id>")
def change(id: str) -> Response:
    item = catalog.model_by_id(id)
    form, deployments = sent(item)
    if not all([form.validate_on_submit(), deployments.validate(form)]):
        return _page(item, form, deployments, 422)
    effects = _effects(item, form)
    if effects and request.form.get("confirmed") != _mark(effects):
        return _page(item, form, deployments, 409, effects=effects)
    before = item.price.id if item.price else None
    from_at = form.from_at
    changes = form.to_changes() if from_at is None else {**form.to_changes(), "price": catalog.UNSET}
    price, specs = form.price, deployments.specs()

    def save() -> bool:
        catalog_changes.change(item, by=me(), deployments=specs, **changes)
        return from_at is not None and catalog.set_price(item, by=me(), price=price, from_at=from_at) is not None

    try:
        planned = form.save(lambda: filled(catalog.model_by_id(id))[0], save)
    except DomainError as error:
        return _page(item, form, deployments, blame_model(form, deployments, error))
    repriced = (item.price.id if item.price else None) != before
    words = f" The new price holds from {from_at:%Y-%m-%d %H:%M} UTC." if planned else ""
    words = " The new price holds from now on." if repriced else words
    toast_next("success", f"{item.name} is saved.{words}")
    return see_other(url_for("admin.models.detail", id=id))


@bp.post("/admin/models/<id>/price-preview")
def price_preview(id: str) -> Response:
    """What the form's prices would have cost in the last 30 days. Nothing is saved, and the form stays as it is."""
    item = catalog.model_by_id(id)
    form, deployments = sent(item)
    form.validate_on_submit()
    if form.price_faults or form.form_errors or "csrf_token" in form.errors:
        return _page(item, form, deployments, 422, fragment=True)
    rates = {name: money.parse(text) for name, text in form.amounts.items()}
    rows = usage_reports.repriced(me(), item.name, directory.Price(id="preview", rates=rates), days=PREVIEW_DAYS)
    return _page(item, form, deployments, fragment=True, preview=_with_total(rows))


def _with_total(rows: list[Repriced]) -> list[Repriced]:
    """Returns the rows and a total without a kind of API; nothing for a model without usage."""
    total = Repriced(api_type="", would_nano=sum(row.would_nano for row in rows))
    for row in rows:
        total.add(row)
    return [*rows, total] if rows else []


@bp.post("/admin/models/<id>/test")
def test(id: str) -> Response:
    """Calls the model now, as any call: routed, held for, charged to this admin and booked. The response is the page itself."""
    item = catalog.model_by_id(id)
    form = ModelTrialForm()
    if not form.validate_on_submit():
        return _test_page(item, form, 422)
    if not item.deployments:
        form.form_errors.append("No provider serves this model yet.")
        return _test_page(item, form, 422)
    throttles.count("test", me().id, throttles.A_PERSON)
    person, name, capabilities = me(), item.name, list(item.capabilities)
    db.session.rollback()  # the upstream may be slow; no transaction must stay open meanwhile
    answered: inference.Answered | None = None
    try:
        answered = inference.test(person, name, capabilities, (form.prompt.data or "").strip() or "Hello")
    except DomainError as error:
        form.form_errors.append(error.message)
    return _test_page(catalog.model_by_id(id), form, 200 if answered else 422, answered)


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


def _new_page(form: ModelForm, deployments: Deployments, status: int = 200) -> Response:
    return render("admin/models/new.html", status=status, form=form, deployments=deployments, usual=USUAL)


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
        usual=USUAL,
        is_preview=fragment,
        preview=preview,
        effects=effects,
        confirmed=_mark(effects),
        moment=now(),
        test=ModelTrialForm(formdata=None),
        route=route_preview.of_model(item),
        health=provider_health.of_models([item])[item.id],
        **_effect(item),
    )


def _test_page(item: Model, form: ModelTrialForm, status: int, answered: inference.Answered | None = None) -> Response:
    return render(
        "admin/models/test.html", "admin/models/_test.html", status=status, model=item, test=form, answered=answered
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
