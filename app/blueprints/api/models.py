"""Models: everyone can read the catalogue; admins change it, with its prices and deployments."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route, sent_members, with_fields
from app.blueprints.api.subscriptions import utc
from app.directory import Capability, ModelStatus
from app.domain import catalog, fields, prices
from app.domain.catalog import DeploymentSpec
from app.domain.errors import Invalid
from app.extensions import db
from app.metering.quantities import PRICE_MEMBERS, PRICES
from app.workflows import catalog_changes, provider_health
from app.workflows.provider_health import StateOfHealth

Name = Annotated[str, Meta(max_length=200)]
Amount = Annotated[str, Meta(max_length=40)] | int | None


if TYPE_CHECKING:
    _Rates = msgspec.Struct
else:
    _Rates = msgspec.defstruct(
        "Rates",
        [(one.name, Annotated[Amount, Meta(title=one.title, description=one.help)], None) for one in PRICE_MEMBERS],
        kw_only=True,
    )


class Band(_Rates, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Prices for a service tier. What you leave out is as in the price itself."""


class LongContext(Band, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Prices for prompts with more than `above_prompt_tokens` tokens."""

    above_prompt_tokens: int


class Price(_Rates, kw_only=True):
    """Decimals in the portal's currency. Token prices are per million tokens. Null means not priced: the nearest more
    general price applies. `tiers` and `long_context` replace prices for some requests."""

    tiers: dict[str, Band] | None = None
    long_context: LongContext | None = None


class PlannedPrice(Price, kw_only=True):
    """A complete future price, and the time from which it is valid."""

    since: datetime = msgspec.field(name="from")


class PriceBody(Price, kw_only=True, forbid_unknown_fields=True):
    """A complete price: amounts that you leave out are not priced. With `from` it takes effect at that time, and the
    current price stays until then; without it, immediately."""

    since: datetime | None = msgspec.field(default=None, name="from")


class DeploymentBody(Body, kw_only=True):
    """`id` is accepted as GET returns it, but a deployment is identified by its provider and the provider's model
    name."""

    id: Annotated[str, Meta(max_length=36)] | UnsetType = UNSET
    provider_id: Annotated[str, Meta(max_length=36)]
    upstream_model: Name
    priority: int = 0
    weight: int = 1
    settings: dict[str, Any] = {}


class Deployment(msgspec.Struct, kw_only=True):
    id: str
    provider_id: str
    upstream_model: str
    priority: int
    weight: int
    settings: dict[str, Any]


class IdentifiedModel(msgspec.Struct, kw_only=True):
    """A model has an id, and what is declared of every model."""

    id: str


class EmbeddingInstructions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is put around the texts of an embeddings request by its `type`: `{text}` stands for the text, and without it the
    instruction stands before the text, a blank between them. Null for none."""

    query: str | None = None
    passage: str | None = None


INSTRUCTIONS = {name: f"{name}_instruction" for name in EmbeddingInstructions.__struct_fields__}

if TYPE_CHECKING:
    DeclaredModel = IdentifiedModel
    ModelBody = Body
else:
    _apart = tuple(INSTRUCTIONS.values())
    DeclaredModel = with_fields(IdentifiedModel, catalog.ModelFields, without=_apart)
    ModelBody = with_fields(
        Body, catalog.ModelFields, absent=UNSET, without=_apart, nullable=("display_name", "description")
    )


class Model(DeclaredModel, kw_only=True):
    """Only admins see `deployments` and the reason of `health`. `price` is the current price; `planned_prices` are the
    future ones, the next one first."""

    embedding_instructions: EmbeddingInstructions
    price: Price | None
    planned_prices: list[PlannedPrice]
    deployments: list[Deployment] | UnsetType = UNSET
    health: StateOfHealth
    created_at: datetime
    updated_at: datetime


class ModelPage(CursorPage, kw_only=True):
    data: list[Model]


class ModelChange(ModelBody, kw_only=True):
    """What you leave out stays unchanged. A `price` replaces the whole price from its time on, and
    `embedding_instructions` both instructions."""

    name: Name | UnsetType = UNSET
    embedding_instructions: EmbeddingInstructions | None | UnsetType = UNSET
    price: PriceBody | None | UnsetType = UNSET
    deployments: list[DeploymentBody] | UnsetType = UNSET


class NewModel(ModelChange, kw_only=True):
    name: Name


class Query(Cursored, kw_only=True):
    search: str | None = None
    capability: Capability | None = None
    status: ModelStatus | None = None


def show(item: catalog.Model, health: StateOfHealth | None = None) -> Model:
    price = item.price
    health = health or provider_health.of_models([item])[item.id]
    if not me().sees_everything:
        health = msgspec.structs.replace(health, reason=None)
    told = fields.told(catalog.ModelFields, item)
    instructions = {name: told.pop(column) or None for name, column in INSTRUCTIONS.items()}
    return Model(
        id=item.id,
        **told,
        embedding_instructions=EmbeddingInstructions(**instructions),
        price=_price(price) if price else None,
        planned_prices=[_price(planned, PlannedPrice, since=planned.from_at) for planned in item.planned_prices],
        deployments=[Deployment(id=deployment.id, **deployment.summary()) for deployment in item.deployments]
        if me().sees_everything
        else UNSET,
        health=health,
        created_at=item.created_at,
        updated_at=item.updated_at,
    )


def _price(price: prices.Price, kind: Any = Price, **more: Any) -> Any:
    values = price.decimals()
    tiers = {tier: Band(**rates) for tier, rates in values.pop("tiers").items()}
    long = values.pop("long_context")
    return kind(**values, tiers=tiers or None, long_context=LongContext(**long) if long else None, **more)


def _changes(body: ModelChange) -> dict[str, Any]:
    """The changes of a body, as the verbs of the catalogue take them."""
    changes = sent_members(body, "name", "embedding_instructions")
    if body.embedding_instructions is not UNSET:
        for name, column in INSTRUCTIONS.items():
            text = getattr(body.embedding_instructions, name, None) or ""
            changes[column] = catalog.read_instruction(text, f"embedding_instructions.{name}")
    if body.price:
        tiers, long = body.price.tiers or {}, body.price.long_context
        changes["price"] = _rates(body.price) | {
            "tiers": {tier: _rates(band) for tier, band in tiers.items()},
            "long_context": long and {"above_prompt_tokens": long.above_prompt_tokens} | _rates(long),
        }
        if body.price.since is not None:
            changes["price_from"] = utc(body.price.since, "price.from")
    if "deployments" in changes:
        changes["deployments"] = [_spec(deployment) for deployment in changes["deployments"]]
    return changes


def _rates(band: Any) -> dict[str, str | None]:
    """The members of a price, as texts."""
    return {name: None if (value := getattr(band, name)) is None else str(value) for name in PRICES}


def _spec(body: DeploymentBody) -> DeploymentSpec:
    return DeploymentSpec(**{name: getattr(body, name) for name in DeploymentSpec.__struct_fields__})


@route("GET", "/api/models", scope="models:read", query=Query, answer=ModelPage)
def index(query: Query) -> dict[str, Any]:
    """Lists the catalogue; admins also see hidden and disabled models."""
    search, capability, status = query.search, query.capability, query.status
    if me().sees_everything:
        models = catalog.all_models(search=search, capability=capability, status=status)
    else:
        models = catalog.offered_models(search=search, capability=capability)
        models = models.where(catalog.Model.status == status) if status else models
    found = page(models, lambda item: item)
    health = provider_health.of_models(found["data"])
    return found | {"data": [show(item, health[item.id]) for item in found["data"]]}


@route("POST", "/api/models", scope="admin", answer=Model, status=201, body=NewModel, writes=True)
def create(body: NewModel) -> Model:
    """Creates a model."""
    return show(catalog.create_model(by=me(), name=body.name, **_changes(body)))


@route("GET", "/api/models/<path:name>", scope="models:read", answer=Model)
def detail(name: str) -> Model:
    """Returns one model."""
    return show(catalog_changes.visible(me(), name))


@route(
    "PUT",
    "/api/models/<path:name>",
    scope="admin",
    answer=Model,
    body=ModelChange,
    writes=True,
    versioned_by=("planned_prices",),
)
def change(name: str, body: ModelChange) -> Model:
    """Changes a model. A new price takes effect now, or at its `from`. If a model becomes restricted, its active
    subscriptions become pending."""
    item = catalog.model(name)
    if body.name is not UNSET and body.name != item.name:
        raise Invalid("A model's name cannot be changed: applications call it by this name.", "name")
    changed = catalog_changes.change(item, by=me(), **_changes(body))
    db.session.refresh(changed)
    return show(changed)


@route("DELETE", "/api/models/<path:name>", scope="admin", status=204, writes=True)
def remove(name: str) -> None:
    """Deletes a model and cancels its live subscriptions."""
    catalog_changes.delete(catalog.model(name), by=me())
