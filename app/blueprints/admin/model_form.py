"""The form of a model: what is declared of it, its price with service tiers and long prompts, and its deployments.

Deployments and service tiers are rows. Some spare rows make the form work without scripts; a row left empty is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

from flask import request
from flask_wtf import FlaskForm
from wtforms import (
    BooleanField,
    DateTimeLocalField,
    Field,
    Form,
    IntegerField,
    SelectField,
    StringField,
    ValidationError,
)
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import Length, NumberRange, Optional

from app import clock
from app.domain import fields, providers
from app.domain.catalog import DeploymentSpec, Model, ModelFields
from app.domain.errors import DomainError
from app.domain.prices import LARGEST_TOKENS, MOST_TIERS, NEEDS_AMOUNT, TIER_NAME, TIER_NAME_RULE, TOKENS_RULE, Price
from app.domain.providers import Provider
from app.extensions import db
from app.metering import money
from app.metering.quantities import PRICE_MEMBERS, PRICES
from app.web.forms import EditForm, Value, blame, with_inputs, words_of

SPARE_ROWS = 3
MOST_ROWS = 200  # that one form can have; the domain accepts fewer
FAULTY = re.compile(r"deployments\[(\d+)\](?:\.(\w+))?")
PRICE = "price_"  # of the fields of the standard amounts
USUAL = ("input_per_mtok", "cached_input_per_mtok", "output_per_mtok", "per_request")  # amounts that are not folded

R = TypeVar("R", bound="Row")
F = TypeVar("F", bound=Form)


def _amount(form: Form, field: StringField) -> None:
    """A validator that checks every amount, so that all invalid ones are reported together."""
    try:
        money.parse((field.data or "").strip() or 0)
    except money.MoneyError as error:
        raise ValidationError(f"This price is invalid: {error}.") from None


def with_amounts(form: type[F], prefix: str = "") -> type[F]:
    """Gives a form an input for each member of a price."""
    attributes = {"inputmode": "decimal", "autocomplete": "off"}
    for member in PRICE_MEMBERS:
        field = StringField(member.title, [_amount], description=member.help, render_kw=attributes)
        setattr(form, prefix + member.name, field)
    return form


def _amounts_of(form: Form, prefix: str = "") -> dict[str, str]:
    """The amounts that are filled in, decimals by the names of `PRICES`."""
    texts = {name: (form[prefix + name].data or "").strip() for name in PRICES}
    return {name: text for name, text in texts.items() if text}


def _fault(form: Form, name: str, message: str) -> None:
    field = form[name]
    field.errors = [*field.errors, message]


def _faults(form: Form) -> Iterator[str]:
    """The errors of a part of the form, each with the label of its field."""
    for field in form:
        yield from (f"{field.label.text}: {message}" for message in field.errors)


def _amount_words(amounts: Mapping[str, str]) -> str:
    return ", ".join(f"{member.title} {amounts[member.name]}" for member in PRICE_MEMBERS if member.name in amounts)


class Row(Form):
    """One row. A spare one is empty."""

    remove = BooleanField("Remove")

    @property
    def is_spare(self) -> bool:
        raise NotImplementedError


class Rows(Generic[R]):
    """The rows of one form: those that were `sent`, or those of an object and some spare ones."""

    kind: type[R]
    name: ClassVar[str]  # with which the names of their inputs begin

    def __init__(self, existing: Sequence[Mapping[str, Any]] = (), *, sent: bool = False) -> None:
        if sent:
            begin = re.compile(rf"{self.name}-(\d{{1,15}})-")
            numbers = sorted({int(found[1]) for name in request.form if (found := begin.match(name))})[:MOST_ROWS]
            self.rows = [self._row(number, request.form) for number in numbers]
        else:
            values = [*existing, *[{}] * SPARE_ROWS]
            self.rows = [self._row(number, data=data) for number, data in enumerate(values)]

    @classmethod
    def spare(cls) -> R:
        """One more spare row, for scripts. Its number is higher than that of any existing row."""
        return cls._row(clock.now_ms())

    @classmethod
    def _row(cls, number: int, sent: Any = None, **values: Any) -> R:
        return cls.kind(sent, prefix=f"{cls.name}-{number}", **values)

    @property
    def used(self) -> list[R]:
        return [row for row in self.rows if not row.is_spare and not row.remove.data]


class DeploymentRow(Row):
    """One deployment. A row with neither provider nor model is a spare one."""

    provider_id = SelectField("Provider", validate_choice=False)
    upstream_model = StringField(
        "Model at the provider",
        [Length(max=200, message="Use at most %(max)d characters.")],
        render_kw={"autocomplete": "off", "spellcheck": "false", "maxlength": 200},
    )
    priority = IntegerField("Priority", [Optional(), NumberRange(0, 1000, "Enter 0 to 1000.")], default=0)
    weight = IntegerField("Weight", [Optional(), NumberRange(0, 1000, "Enter 0 to 1000.")], default=1)

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


class Deployments(Rows[DeploymentRow]):
    kind = DeploymentRow
    name = "deployments"

    def __init__(self, item: Model | None = None, *, sent: bool = False) -> None:
        existing = item.deployments if item else ()
        super().__init__([one.summary() for one in existing], sent=sent)
        self.settings = {(one.provider_id, one.upstream_model): one.settings for one in existing}
        choices = _choices(list(db.session.scalars(providers.search())))
        for row in self.rows:
            row.provider_id.choices = choices

    @classmethod
    def spare(cls) -> DeploymentRow:
        row = super().spare()
        row.provider_id.choices = _choices(list(db.session.scalars(providers.search())))
        return row

    def validate(self, form: FlaskForm) -> bool:
        """Whether all used rows are complete. Their errors are also added to the form."""
        for row in self.used:
            row.validate()
            if not row.provider_id.data:
                _fault(row, "provider_id", "Choose a provider.")
            elif not (row.upstream_model.data or "").strip():
                _fault(row, "upstream_model", "Enter the provider's name for the model.")
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


@with_amounts
class TierRow(Row):
    """The amounts of one service tier. A row with neither name nor amount is a spare one."""

    name = StringField(
        "Name of the tier",
        description="As the provider calls it, such as flex, priority or batch.",
        render_kw={"autocomplete": "off", "spellcheck": "false", "maxlength": 32},
    )

    @property
    def tier(self) -> str:
        return (self.name.data or "").strip()

    @property
    def is_spare(self) -> bool:
        return not self.tier and not _amounts_of(self)


class Tiers(Rows[TierRow]):
    kind = TierRow
    name = "tiers"

    def validate(self) -> list[str]:
        """Returns what is wrong with the used rows, one sentence for each fault."""
        used = self.used
        names = [row.tier for row in used]
        faults = [f"Use at most {MOST_TIERS} tiers."] if len(used) > MOST_TIERS else []
        for number, row in enumerate(used, 1):
            row.validate()
            if not TIER_NAME.fullmatch(row.tier):
                _fault(row, "name", TIER_NAME_RULE)
            elif row.tier in names[: number - 1]:
                _fault(row, "name", "This tier is listed twice.")
            if not _amounts_of(row):
                _fault(row, "input_per_mtok", NEEDS_AMOUNT)
            faults += [f"Service tier {number}, {fault}" for fault in _faults(row)]
        return faults

    def given(self) -> dict[str, dict[str, str]]:
        return {row.tier: _amounts_of(row) for row in self.used}


@with_amounts
class LongContextForm(Form):
    """The amounts for long prompts. They do not apply if everything is empty."""

    above_prompt_tokens = IntegerField(
        "Above so many prompt tokens",
        [Optional(), NumberRange(1, LARGEST_TOKENS, TOKENS_RULE)],
        description="Such as 200000.",
        render_kw={"inputmode": "numeric", "autocomplete": "off", "min": 1},
    )

    @property
    def is_used(self) -> bool:
        return bool(words_of(self.above_prompt_tokens) or _amounts_of(self))

    def faults(self) -> list[str]:
        """Returns what is wrong with it, one sentence for each fault."""
        if not self.is_used:
            return []
        self.validate()
        if not words_of(self.above_prompt_tokens):
            _fault(self, "above_prompt_tokens", TOKENS_RULE)
        if not _amounts_of(self):
            _fault(self, "input_per_mtok", NEEDS_AMOUNT)
        return [f"Long prompts, {fault}" for fault in _faults(self)]

    def given(self) -> dict[str, Any] | None:
        if not self.is_used:
            return None
        return {"above_prompt_tokens": self.above_prompt_tokens.data, **_amounts_of(self)}


class Bands:
    """The parts of a price that apply to some requests instead of the standard amounts: those that were `sent`, or those
    of `price`."""

    def __init__(self, price: Price | None = None, *, sent: bool = False) -> None:
        held = price.bands() if price else {"tiers": {}, "long_context": None}
        self.tiers = Tiers([{"name": tier, **amounts} for tier, amounts in held["tiers"].items()], sent=sent)
        self.long_context = LongContextForm(
            request.form if sent else None, prefix="long_context", data=held["long_context"]
        )
        self.faults: list[str] = []

    @property
    def are_used(self) -> bool:
        return bool(self.tiers.used) or self.long_context.is_used

    def validate(self) -> bool:
        """Whether all that is used is complete; `faults` says what is wrong."""
        self.faults = self.tiers.validate() + self.long_context.faults()
        return not self.faults

    def given(self) -> dict[str, Any]:
        """Both as the domain takes them."""
        return {"tiers": self.tiers.given(), "long_context": self.long_context.given()}

    def values(self) -> Iterator[Value]:
        tiers = self.tiers.given()
        words = [f"{tier}: {_amount_words(amounts)}" for tier, amounts in tiers.items()]
        yield Value("tiers", "Service tiers", sorted(tiers.items()), "; ".join(words))
        long = self.long_context.given()
        above = f"above {long['above_prompt_tokens']} tokens: {_amount_words(long)}" if long else ""
        yield Value("long_context", "Long prompts", long, above)


@with_inputs(ModelFields)
class ModelForm(EditForm):
    """A model. Its deployments are rows beside it."""

    deployments: Deployments | None = None
    bands: Bands

    price_from = DateTimeLocalField(
        "Effective from",
        [Optional()],
        format=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
        description="In UTC. Empty for now; a later time plans a change of price.",
    )

    def validate(self, extra_validators: Any = None) -> bool:
        is_valid: bool = super().validate(extra_validators)
        if not self.bands.validate():
            self.form_errors += self.bands.faults
            return False
        return is_valid

    def values(self) -> Iterator[Value]:
        yield from super().values()
        yield from self.bands.values()
        if self.deployments is not None:
            yield self.deployments.value()

    @property
    def amounts(self) -> dict[str, str]:
        """The standard amounts that are filled in, decimals by name."""
        return _amounts_of(self, PRICE)

    @property
    def price(self) -> dict[str, Any]:
        """The whole price as the domain takes it."""
        return {**self.amounts, **self.bands.given()}

    @property
    def price_faults(self) -> list[str]:
        """What is wrong with the price, one sentence for each fault."""
        faulty: list[Field] = [self[PRICE + name] for name in PRICES if self[PRICE + name].errors]
        return [f"{field.label.text}: {' '.join(field.errors)}" for field in faulty] + self.bands.faults

    @property
    def from_at(self) -> datetime | None:
        """When a planned price takes effect; None for now."""
        moment: datetime | None = self.price_from.data if "price_from" in self else None
        return moment.replace(tzinfo=UTC) if moment else None

    def to_changes(self) -> dict[str, Any]:
        """The arguments of `catalog.create_model` and, without the name, of `update_model`, except the deployments."""
        return {**self.entered(), "price": self.price}


with_amounts(ModelForm, PRICE)


def new_form(*, sent: bool = False) -> tuple[ModelForm, Deployments]:
    """Returns the form of a new model, and its rows of deployments."""
    form = ModelForm() if sent else ModelForm(formdata=None)
    form.bands = Bands(sent=sent)
    del form.price_from  # a first price takes effect immediately
    return form, Deployments(sent=sent)


def filled(item: Model) -> tuple[ModelForm, Deployments]:
    """Returns the form of a model with its current values, and its deployments."""
    amounts = item.price.decimals() if item.price else {}
    data = {PRICE + name: amounts.get(name) for name in PRICES} | fields.told(ModelFields, item)
    deployments = Deployments(item)
    form = _change_form(deployments, Bands(item.price), formdata=None, data=data)
    form.beside = [one.settings for one in item.deployments]
    return form.as_opened(), deployments


def sent(item: Model) -> tuple[ModelForm, Deployments]:
    """Returns the form of a model as it was sent, and its deployments."""
    deployments = Deployments(item, sent=True)
    return _change_form(deployments, Bands(sent=True)), deployments


def _change_form(deployments: Deployments, bands: Bands, **arguments: Any) -> ModelForm:
    form = ModelForm(**arguments)
    form.deployments, form.bands = deployments, bands
    del form.name  # applications call the model by its name
    return form


def blame_model(form: ModelForm, deployments: Deployments, error: DomainError) -> int:
    """Adds a refusal of the domain to its field or row. Returns the status of the response."""
    if deployments.blame(form, error):
        return 422
    return blame(form, error, **{"from": "price_from"}, **{f"price.{name}": PRICE + name for name in PRICES})


def _choices(all_providers: Sequence[Provider]) -> list[SelectChoice]:
    words = [
        SelectChoice(provider.id, provider.name if provider.status == "active" else f"{provider.name} (disabled)")
        for provider in all_providers
    ]
    return [SelectChoice("", "Choose …"), *words]
