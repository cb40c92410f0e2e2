"""The models that a provider lists, and the form that publishes those that are ticked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, request, url_for
from wtforms import BooleanField, Form, HiddenField, IntegerField, SelectField, StringField, ValidationError
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, NumberRange, Optional

from app import current
from app.blueprints.admin.model_form import with_amounts
from app.blueprints.admin.person import me
from app.clock import from_ms
from app.domain import catalog, providers
from app.domain.catalog import CAPABILITIES, ModelFields
from app.domain.errors import DomainError
from app.domain.fields import fields_of
from app.domain.prices import LARGEST_TOKENS
from app.domain.providers import Provider
from app.extensions import transaction
from app.metering import money
from app.metering.quantities import PRICES
from app.providers.model_list import ListedModel
from app.web.forms import EditForm, blame, with_inputs
from app.web.lists import Listing, filters_from_request
from app.web.render import render, see_other, toast_next
from app.workflows import model_import, model_lists
from app.workflows.model_import import Draft, Refused
from app.workflows.model_lists import ModelList

SIZES = (20, 50)
ROW = re.compile(r"m(\d{1,4})-upstream_model")
MOST_ROWS = 100  # of one form
USUAL_PRICES = ("input_per_mtok", "output_per_mtok")  # asked for although nothing is known
NUMBER = NumberRange(1, LARGEST_TOKENS, "Enter a number of at least 1.")
NARROW = {"inputmode": "numeric", "min": 1}

bp = Blueprint("provider_models", __name__)


_read_name: Any = next(field.read for field in fields_of(ModelFields) if field.name == "name")


def _must_be_a_name(form: Form, field: StringField) -> None:
    """A validator that checks every name, so that all invalid ones are reported together."""
    try:
        _read_name(field.data or "")
    except DomainError as error:
        raise ValidationError(error.message) from None


@with_amounts
class Row(Form):
    """One model that is listed."""

    chosen = BooleanField("Import")
    upstream_model = HiddenField("Model at the provider")
    name = StringField(
        "Name",
        [InputRequired("Give the model a name."), _must_be_a_name],
        render_kw={"autocomplete": "off", "spellcheck": "false", "maxlength": 200},
    )
    capability = SelectField("Capability", choices=[SelectChoice(name, name.capitalize()) for name in CAPABILITIES])
    context_window = IntegerField("Context", [Optional(), NUMBER], render_kw=NARROW)
    max_output_tokens = IntegerField("Max output", [Optional(), NUMBER], render_kw=NARROW)
    draft: Draft  # what is filled in
    served: Sequence[str] = ()  # the models that are made of it already

    @classmethod
    def of(cls, number: int, draft: Draft, *, served: Sequence[str] = (), sent: bool = False) -> Row:
        values = {name: draft.price.get(name) for name in PRICES}
        row = cls(request.form if sent else None, obj=draft, data=values, prefix=f"m{number}-")
        row.draft, row.served = draft, served
        return row

    @property
    def prices(self) -> list[Any]:
        """The inputs of those amounts that are known, and of the usual ones."""
        return [self[name] for name in PRICES if name in USUAL_PRICES or self.draft.price.get(name) is not None]

    def to_draft(self) -> Draft:
        """What was entered. What holds instead of the price, for some requests, belongs to the price as it was filled in."""
        price = {field.short_name: (field.data or "").strip() or None for field in self.prices}
        known = {name: self.draft.price.get(name) for name in price}
        is_known = {name: money.parse(text or 0) for name, text in price.items()} == {
            name: money.parse(text or 0) for name, text in known.items()
        }
        return Draft(
            upstream_model=self.upstream_model.data or "",
            name=(self.name.data or "").strip(),
            capability=self.capability.data,
            features=self.draft.features,
            context_window=self.context_window.data,
            max_output_tokens=self.max_output_tokens.data,
            price=price,
            bands=self.draft.bands if is_known else {},
        )

    def blame(self, error: DomainError) -> None:
        name = (error.field or "name").removeprefix("price.")
        field = self[name if name in self else "name"]
        field.errors = [*field.errors, error.message]


@with_inputs(ModelFields, only=lambda field: field.name in ("status", "restricted"))
class ImportForm(EditForm):
    """What all models of an import have in common."""

    rows: Sequence[Row] = ()

    @property
    def chosen(self) -> list[Row]:
        return [row for row in self.rows if row.chosen.data]

    def validate(self, extra_validators: Any = None) -> bool:
        faulty = [row for row in self.chosen if not row.validate()]
        is_valid = super().validate(extra_validators)
        if not self.chosen:
            self.form_errors.append("Choose at least one model.")
        self.add_faults()
        return is_valid and not faulty and bool(self.chosen)

    def add_faults(self) -> None:
        """Tells the errors of the rows above the form too, each with its model."""
        for row in self.chosen:
            for faults in row.errors.values():
                self.form_errors += [f"{row.upstream_model.data}: {fault}" for fault in faults]


@bp.get("/admin/providers/<id>/models")
def index(id: str) -> Response:
    listing = model_lists.of(providers.get(id))
    item = providers.get(id)
    served = catalog.models_by_upstream(id)
    filters = filters_from_request(show=("new",))
    words = filters.search.casefold()
    found = [
        one
        for one in listing.models
        if words in one.id.casefold() and not (filters["show"] == "new" and one.id in served)
    ]
    form = ImportForm(formdata=None, data={"status": "active"})
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    page = max(1, min(request.args.get("page", 1, type=int) or 1, -(-len(found) // size)))
    form.rows = [
        Row.of(number, _draft(item, one), served=served.get(one.id, ()))
        for number, one in enumerate(found[(page - 1) * size : page * size])
    ]
    return _page(
        item, listing, form, Listing(form.rows, page, size, len(found)), search=filters.search, show=filters["show"]
    )


@bp.post("/admin/providers/<id>/models")
def publish(id: str) -> Response:
    """Publishes the models that are ticked, all or none."""
    item = providers.get(id)
    served = catalog.models_by_upstream(id)
    form = ImportForm()
    numbers = sorted(int(found[1]) for name in request.form if (found := ROW.fullmatch(name)))[:MOST_ROWS]
    ids = [request.form[f"m{number}-upstream_model"] for number in numbers]
    limits = {one.id: one for one in _stored(item).models}
    form.rows = [
        Row.of(number, _draft(item, limits.get(name, ListedModel(name))), served=served.get(name, ()), sent=True)
        for number, name in zip(numbers, ids, strict=True)
    ]
    if not form.validate_on_submit():
        return _refused(item, form, 422)
    drafts = [row.to_draft() for row in form.chosen]
    values: dict[str, Any] = form.entered()
    try:
        made = transaction(model_import.publish, item, drafts, by=me(), **values)
    except Refused as error:
        for place, fault in error.faults.items():
            form.chosen[place].blame(fault)
        form.add_faults()
        return _refused(item, form, 422)
    except DomainError as error:
        return _refused(item, form, blame(form, error))
    toast_next("success", f"{len(made)} {'model is' if len(made) == 1 else 'models are'} published.")
    return see_other(url_for("admin.models.index", provider=id))


@bp.post("/admin/providers/<id>/models/list")
def refresh(id: str) -> Response:
    """Asks the provider again."""
    listing = model_lists.of(providers.get(id), anew=True)
    if listing.reason:
        toast_next("danger", listing.reason)
    else:
        toast_next("success", "The list is up to date.")
    return see_other(url_for("admin.provider_models.index", id=id))


def _draft(item: Provider, one: ListedModel) -> Draft:
    return model_import.draft(item.kind, one, currency=current.config().portal.currency)


def _stored(item: Provider) -> ModelList:
    return model_lists.known([item]).get(item.id) or ModelList(version=0, at_ms=0, since_ms=0)


def _refused(item: Provider, form: ImportForm, status: int) -> Response:
    """The form as it was sent, with what is wrong."""
    rows = list(form.rows)
    return _page(item, _stored(item), form, Listing(rows, 1, len(rows), len(rows)), status=status)


def _page(
    item: Provider,
    listing: ModelList,
    form: ImportForm,
    rows: Listing[Row],
    *,
    search: str = "",
    show: str = "",
    status: int = 200,
) -> Response:
    return render(
        "admin/providers/models.html",
        "admin/providers/_models.html",
        status=status,
        provider=item,
        form=form,
        listing=rows,
        search=search,
        show=show,
        reason=listing.reason,
        has_list=listing.has_list,
        count=len(listing.models),
        listed_at=None if listing.listed_at_ms is None else from_ms(listing.listed_at_ms),
    )
