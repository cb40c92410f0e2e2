"""Models, and the deployments that join them to providers. Prices are in `app.domain.prices`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta
from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Select,
    String,
    Text,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, contains_eager, joinedload, mapped_column, relationship

from app.clock import LATEST, now
from app.directory import TEXT, Capability, ModelStatus
from app.domain import audit, fields, prices
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.person import Person
from app.domain.prices import LARGEST_TOKENS, Price
from app.domain.providers import Provider, must_be_deployable
from app.extensions import Base, db
from app.runtime.ids import new_id

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

CAPABILITIES: tuple[str, ...] = get_args(Capability)
STATUSES: tuple[str, ...] = get_args(ModelStatus)
OFFERED: tuple[str, ...] = ("active", "deprecated")  # shown in the catalogue

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,199}")


Tokens = Annotated[int, Meta(ge=1, le=LARGEST_TOKENS)]


def _model_name(name: str) -> str:
    if not MODEL_NAME.fullmatch(name) or "//" in name or name.endswith("/"):
        raise Invalid("Use 1 to 200 letters, digits and . _ : @ + - /, beginning with a letter or digit.", "name")
    return name


LONGEST_INSTRUCTION = 4_000


def read_instruction(instruction: str, field: str) -> str:
    """An instruction of embeddings as it is kept: one that does not name the text's place stands before it. Raises
    `Invalid` for `field`."""
    if TEXT in instruction or not instruction.strip():
        instruction = instruction.strip()
    if instruction.count(TEXT) > 1 or len(instruction) > LONGEST_INSTRUCTION:
        raise Invalid(
            f"Write {TEXT} at most once, where the text goes, in at most {LONGEST_INSTRUCTION} characters.", field
        )
    return instruction


class ModelFields(msgspec.Struct, kw_only=True):
    """The fields of a model. Each is declared once, here, and has a column in `Model`."""

    name: Annotated[
        str,
        Meta(
            max_length=200,
            title="Name",
            description="Applications call the model by this name. It can't be changed later. "
            "Use letters, digits and . _ : @ + - /",
            extra={
                "needed": "Give the model a name.",
                "read": _model_name,
                "attributes": {"spellcheck": "false"},
            },
        ),
    ]
    display_name: Annotated[
        str,
        Meta(
            max_length=200,
            title="Display name",
            description="Shown in the catalogue. If empty, the name is shown.",
        ),
    ] = ""
    description: Annotated[
        str,
        Meta(
            max_length=20_000,
            title="Description",
            extra={"lines": 3, "refusal": "Use at most 20000 characters."},
        ),
    ] = ""
    status: Annotated[
        ModelStatus,
        Meta(
            title="Status",
            extra={
                "labels": {
                    "active": "Active: in the catalogue",
                    "hidden": "Hidden: works, but not in the catalogue",
                    "deprecated": "Deprecated: in the catalogue with a warning",
                    "disabled": "Disabled: calls are refused",
                }
            },
        ),
    ] = "active"
    restricted: Annotated[
        bool,
        Meta(
            title="Restricted access",
            description="People request access and an administrator decides. People who have access now must request it too.",
        ),
    ] = False
    capabilities: Annotated[
        list[Capability],
        Meta(
            min_length=1,
            title="Capabilities",
            extra={"labels": {name: name.capitalize() for name in CAPABILITIES}},
        ),
    ] = msgspec.field(default_factory=lambda: ["chat"])
    features: Annotated[
        list[Annotated[str, Meta(max_length=50)]],
        Meta(
            max_length=50,
            title="Features",
            description="Keywords, separated by commas, such as tools, vision, reasoning.",
        ),
    ] = []
    aliases: Annotated[
        list[Annotated[str, Meta(max_length=200)]],
        Meta(
            max_length=50,
            title="Other names",
            description="Applications can also call the model by these names, separated by commas. Answers show its own name.",
        ),
    ] = []
    context_window: Annotated[
        Tokens | None, Meta(title="Context window", description="Input and output tokens together.")
    ] = None
    max_output_tokens: Annotated[Tokens | None, Meta(title="Max output", description="Tokens.")] = None
    default_output_tokens: Annotated[
        Tokens | None, Meta(title="Default output limit", description="Tokens reserved when a request names no limit.")
    ] = None
    image_tokens: Annotated[
        Tokens | None,
        Meta(
            title="Image tokens",
            description="Maximum tokens that one image in a prompt can count as. If empty, a default limit applies.",
        ),
    ] = None
    audio_tokens: Annotated[
        Tokens | None,
        Meta(
            title="Audio tokens",
            description="The most tokens that one piece in a prompt may count. Empty for the usual bound.",
        ),
    ] = None
    query_instruction: Annotated[
        str,
        Meta(
            max_length=LONGEST_INSTRUCTION,
            title="Instruction for queries",
            description='Template for a text when the request says "type": "query", such as: query: {text}',
            extra={"read": partial(read_instruction, field="query_instruction")},
        ),
    ] = ""
    passage_instruction: Annotated[
        str,
        Meta(
            max_length=LONGEST_INSTRUCTION,
            title="Instruction for passages",
            description='The same for "type": "passage". If empty, the text is sent as it is.',
            extra={"read": partial(read_instruction, field="passage_instruction")},
        ),
    ] = ""


class Model(Base):
    """A model that people subscribe to and applications call. `prices` has the newest first; `price` is the current one."""

    __tablename__ = "model"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    display_name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text, default="")
    capabilities: Mapped[list[str]] = mapped_column(default=list)
    features: Mapped[list[str]] = mapped_column(default=list)
    aliases: Mapped[list[str]] = mapped_column(default=list)
    context_window: Mapped[int | None]
    max_output_tokens: Mapped[int | None]
    default_output_tokens: Mapped[int | None]
    restricted: Mapped[bool] = mapped_column(default=False)
    image_tokens: Mapped[int | None]
    audio_tokens: Mapped[int | None]
    query_instruction: Mapped[str] = mapped_column(Text, default="")
    passage_instruction: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[str] = mapped_column(String(16), default="active")
    status_at: Mapped[datetime | None] = mapped_column(default=now)  # since when it has this status
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)

    deployments: Mapped[list[Deployment]] = relationship(
        back_populates="model",
        cascade="all, delete-orphan",
        order_by="(Deployment.priority, Deployment.id)",
        lazy="selectin",
    )
    prices: Mapped[list[Price]] = relationship(
        cascade="all, delete-orphan", order_by="(Price.from_at.desc(), Price.id.desc())", lazy="selectin"
    )

    @property
    def price(self) -> Price | None:
        """The current price."""
        return self.price_at(now())

    @property
    def is_served(self) -> bool:
        """Whether any deployment's provider is active. If none is, every call is refused."""
        return any(item.provider.status == "active" for item in self.deployments)

    def price_at(self, moment: datetime) -> Price | None:
        return prices.in_force(self.prices, moment)

    @property
    def planned_prices(self) -> list[Price]:
        """The future prices, the next first."""
        return prices.planned(self.prices)

    def summary(self) -> dict[str, Any]:
        told = fields.told(ModelFields, self)
        del told["description"]  # too long to store again with each change
        return {
            **told,
            "price": self.price.decimals() if self.price else None,
            "deployments": [item.summary() for item in self.deployments],
        }


class Deployment(Base):
    """A model at one provider. Lower priorities are tried first; weights divide the calls among equal priorities."""

    __tablename__ = "deployment"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"), index=True)
    provider_id: Mapped[str] = mapped_column(ForeignKey("provider.id"), index=True)
    upstream_model: Mapped[str] = mapped_column(String(200))
    priority: Mapped[int] = mapped_column(default=0)
    weight: Mapped[int] = mapped_column(default=1)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)

    model: Mapped[Model] = relationship(back_populates="deployments")
    provider: Mapped[Provider] = relationship(lazy="joined")

    def summary(self) -> dict[str, Any]:
        return {
            "provider_id": self.provider_id,
            "upstream_model": self.upstream_model,
            "priority": self.priority,
            "weight": self.weight,
            "settings": self.settings,
        }


class DeploymentSpec(msgspec.Struct, kw_only=True):
    """A deployment to create or keep."""

    provider_id: str
    upstream_model: str
    priority: int = 0
    weight: int = 1
    settings: dict[str, Any] = {}


def model(name: str) -> Model:
    """Returns the model with this name. Raises `NotFound`."""
    found = find_model(name)
    if found is None:
        raise NotFound(f"There is no model named {name!r}.")
    return found


def model_by_id(id: str) -> Model:
    """Returns the model with this id. Raises `NotFound`."""
    model = db.session.get(Model, id)
    if model is None:
        raise NotFound("There is no such model.")
    return model


def names() -> list[str]:
    """Returns all model names in order. Filters need only the names."""
    return list(db.session.scalars(select(Model.name).order_by(Model.name)))


def with_deployments() -> Any:
    """Loads deployments in the same query. Don't use it for exports, which are read in batches."""
    return joinedload(Model.deployments)


def find_model(name: str) -> Model | None:
    return db.session.scalar(select(Model).where(Model.name == name))


def find_called(name: str) -> Model | None:
    """Returns the model that has this name or alias, or None."""
    return find_model(name) or db.session.scalar(select(Model).where(has_word(Model.aliases, name)))


def all_models(
    *,
    search: str | None = None,
    status: str | None = None,
    capability: str | None = None,
    restricted: bool | None = None,
    provider_id: str | None = None,
) -> Select[Model]:
    """Selects every model in order of name, including hidden and disabled ones. For admins."""
    query = select(Model).order_by(Model.name)
    if search:
        query = query.where(matches(search))
    if status:
        query = query.where(Model.status == status)
    if capability:
        query = query.where(has_word(Model.capabilities, capability))
    if restricted is not None:
        query = query.where(Model.restricted == restricted)
    if provider_id:
        query = query.where(served_by(provider_id))
    return query


def offered_models(*, search: str | None = None, capability: str | None = None) -> Select[Model]:
    """Selects the models everyone sees: active and deprecated ones."""
    return all_models(search=search, capability=capability).where(Model.status.in_(OFFERED))


# --- conditions on models, as SQL ---


def matches(search: str) -> ColumnElement[bool]:
    """Whether a model's names or description contain some words."""
    columns = (Model.name, Model.display_name, Model.description)
    return or_(*(column.icontains(search, autoescape=True) for column in columns))


def has_word(column: Any, word: Any) -> ColumnElement[bool]:
    """Whether a list column (capabilities, features) contains exactly this word, a string or a column."""
    if db.engine.dialect.name == "postgresql":  # an index can answer this form
        return cast(column, JSONB).contains([word] if isinstance(word, str) else func.to_jsonb(word))
    words = words_of(column)
    return exists(select(literal(1)).select_from(words).where(words.c.value == word))


def has_no_word(column: Any) -> ColumnElement[bool]:
    """Whether a list of words is empty."""
    return cast(column, Text) == "[]"


def words_of(column: Any) -> Any:
    """The items of a JSON list as rows with the column `value`, joined to their row."""
    each = func.json_array_elements_text if db.engine.dialect.name == "postgresql" else func.json_each
    return each(column).table_valued("value", name="word")


def served_by(provider_id: str) -> ColumnElement[bool]:
    """Whether a model has a deployment at a provider."""
    return exists().where(Deployment.model_id == Model.id, Deployment.provider_id == provider_id).correlate(Model)


def is_served() -> ColumnElement[bool]:
    """`Model.is_served` as SQL."""
    served = (Deployment.model_id == Model.id, Deployment.provider_id == Provider.id, Provider.status == "active")
    return exists().where(*served).correlate(Model)


def price_now(name: str) -> Any:
    """A member of the current price, such as `input_per_mtok`, as SQL: nano-units, or null."""
    return (
        select(getattr(Price, name))
        .where(Price.model_id == Model.id, Price.from_at <= now())
        .order_by(Price.from_at.desc(), Price.id.desc())
        .limit(1)
        .correlate(Model)
        .scalar_subquery()
    )


def models_by_provider() -> dict[str, list[str]]:
    """Returns the names of the models each provider serves, by provider id."""
    served: dict[str, list[str]] = {}
    query = select(Deployment.provider_id, Model.name).join(Model).distinct().order_by(Model.name)
    for id, name in db.session.execute(query):
        served.setdefault(id, []).append(name)
    return served


def models_by_upstream(provider_id: str) -> dict[str, list[str]]:
    """Returns the names of the models a provider serves, by their names at the provider."""
    served: dict[str, list[str]] = {}
    query = select(Deployment.upstream_model, Model.name).join(Model).where(Deployment.provider_id == provider_id)
    for upstream_model, name in db.session.execute(query.order_by(Model.name)):
        served.setdefault(upstream_model, []).append(name)
    return served


def deployments_of(item: Provider) -> list[Deployment]:
    """Returns a provider's deployments with their models, in order of model name."""
    query = (
        select(Deployment)
        .join(Model)
        .where(Deployment.provider_id == item.id)
        .options(contains_eager(Deployment.model))
        .order_by(Model.name, Deployment.priority, Deployment.id)
    )
    return list(db.session.scalars(query))


def settings_of_deployment(item: Provider, upstream_model: str) -> dict[str, Any]:
    """Returns the settings of a provider's deployment of this upstream model: the first one's, if several use it."""
    chosen = (one.settings for one in deployments_of(item) if one.upstream_model == upstream_model)
    return next(chosen, {})


def only_served_by(item: Provider) -> list[str]:
    """Returns the names of the models that no other active provider serves. They stop when this provider stops."""
    other = exists().where(
        Deployment.model_id == Model.id,
        Deployment.provider_id == Provider.id,
        Provider.status == "active",
        Provider.id != item.id,
    )
    return list(db.session.scalars(select(Model.name).where(served_by(item.id), ~other).order_by(Model.name)))


def upstream_models_of(item: Provider) -> list[str]:
    """Returns the provider's own names for the models it serves."""
    query = select(Deployment.upstream_model).where(Deployment.provider_id == item.id).distinct()
    return sorted(db.session.scalars(query))


def create_model(
    *,
    by: Person | None,
    name: str,
    price: Mapping[str, Any] | None = None,
    price_from: datetime | None = None,
    deployments: Sequence[DeploymentSpec] = (),
    **values: Any,
) -> Model:
    """Creates a model with the given `ModelFields`. `price` is what `prices.read` takes. It applies from now or from
    `price_from`. Raises `Invalid`, and `Conflict` for a name that is taken."""
    model = Model(id=new_id())
    _fill_model(model, {**fields.usual(ModelFields), **values, "name": name})
    if find_called(name):
        raise Conflict(f"The name {name} is taken.", "name")
    _must_be_free(model)
    db.session.add(model)
    with db.session.no_autoflush:  # a new deployment belongs to its provider before the session knows it
        _set_deployments(model, deployments)
    if price is not None and price_from is None:
        _add_price(model, price, now())
    db.session.flush()
    audit.record(by, "model.create", "model", model.id, name=name, after=model.summary())
    mark_for_publication("directory")
    if price is not None and price_from is not None:
        set_price(model, by=by, price=price, from_at=price_from, field="price.from")
    return model


def update_model(
    item: Model,
    *,
    by: Person | None,
    price: Mapping[str, Any] | None | Unset = UNSET,
    price_from: datetime | None = None,
    deployments: Sequence[DeploymentSpec] | Unset = UNSET,
    **values: Any,
) -> Model:
    """Updates the given fields. A price that differs from the current one applies from now, or from `price_from` as in
    `set_price`.

    Doors call `catalog_changes.change`, which also updates subscriptions."""
    before = item.summary()
    _fill_model(item, values)
    if values.get("aliases", UNSET) is not UNSET:
        _must_be_free(item)
    if deployments is not UNSET:
        with db.session.no_autoflush:  # as above
            _set_deployments(item, deployments)
    if price is not UNSET:
        if price_from is None:
            _add_price(item, price or {}, now())
        else:
            set_price(item, by=by, price=price or {}, from_at=price_from, field="price.from")
    item.updated_at = now()
    db.session.flush()
    audit.record(by, "model.update", "model", item.id, name=item.name, before=before, after=item.summary())
    mark_for_publication("directory")
    return item


def set_price(
    item: Model, *, by: Person | None, price: Mapping[str, Any], from_at: datetime, field: str = "from"
) -> Price | None:
    """Sets a price that applies from `from_at`, now or later. Returns None if the same price applies then already.

    Raises `Invalid`, naming `field`, for a time in the past: past charges must stay explainable.
    """
    if from_at < now().replace(microsecond=0):
        raise Invalid("A price can start now or later, not in the past.", field)
    if from_at >= LATEST:
        raise Invalid("A price must start before the year 3000.", field)
    made = _add_price(item, price, from_at)
    if made:
        db.session.flush()
        after = {"from": from_at.isoformat(), "price": made.decimals()}
        audit.record(by, "price.set", "model", item.id, name=item.name, after=after)
        mark_for_publication("directory")
    return made


def remove_model(item: Model, *, by: Person | None) -> None:
    """Deletes a model with its deployments and prices. Doors call `catalog_changes.delete`, which also ends
    subscriptions."""
    audit.record(by, "model.delete", "model", item.id, name=item.name, before=item.summary(), after={})
    db.session.delete(item)
    db.session.flush()
    mark_for_publication("directory")


def weigh(item: Provider, *, by: Person | None, wanted: Mapping[str, tuple[int, int]]) -> int:
    """Sets priority and weight of a provider's deployments, by id. Returns how many changed. Raises `Invalid` naming
    `<id>.priority` or `<id>.weight`, and `NotFound` for a deployment of another provider."""
    present = {one.id: one for one in deployments_of(item)}
    changed = 0
    for id, (priority, weight) in wanted.items():
        one = present.get(id)
        if one is None:
            raise NotFound("There is no such deployment.")
        _must_be_a_rank(priority, weight, id)
        if (one.priority, one.weight) == (priority, weight):
            continue
        before = one.summary()
        one.priority, one.weight = priority, weight
        name = one.model.name
        audit.record(by, "deployment.weigh", "model", one.model_id, name=name, before=before, after=one.summary())
        changed += 1
    if changed:
        mark_for_publication("directory")
    return changed


def _fill_model(item: Model, values: Mapping[str, Any]) -> None:
    status = item.status
    fields.fill(ModelFields, item, values)
    item.display_name = item.display_name.strip() or item.name
    if status != item.status:
        item.status_at = now()


def _must_be_free(item: Model) -> None:
    """Raises `Invalid` for an alias that can't be a model name, and `Conflict` for one that is taken."""
    with db.session.no_autoflush:
        for alias in item.aliases:
            try:
                _model_name(alias)
            except Invalid as error:
                raise Invalid(f"{alias}: {error}", "aliases") from None
            found = find_called(alias)
            if alias == item.name or (found is not None and found.id != item.id):
                raise Conflict(f"The name {alias} is taken.", "aliases")


def _set_deployments(item: Model, wanted: Sequence[DeploymentSpec]) -> None:
    """Replaces the deployments. An unchanged deployment keeps its id."""
    if len(wanted) > 100:
        raise Invalid("Use at most 100 deployments.", "deployments")
    existing = {(one.provider_id, one.upstream_model): one for one in item.deployments}
    chosen: list[Deployment] = []
    for position, spec in enumerate(wanted):
        where = f"deployments[{position}]"
        upstream = db.session.get(Provider, spec.provider_id)
        if upstream is None:
            raise Invalid("There is no such provider.", f"{where}.provider_id")
        if not 1 <= len(spec.upstream_model.strip()) <= 200:
            raise Invalid("Enter the provider's name for the model, at most 200 characters.", f"{where}.upstream_model")
        _must_be_a_rank(spec.priority, spec.weight, where)
        name = (spec.provider_id, spec.upstream_model.strip())
        must_be_deployable(upstream, spec.settings, f"{where}.settings")
        one = existing.pop(name, None)
        if one is None:
            if any((other.provider_id, other.upstream_model) == name for other in chosen):
                raise Invalid("This deployment is listed twice.", where)
            one = Deployment(id=new_id(), provider=upstream, provider_id=name[0], upstream_model=name[1])
        one.priority, one.weight, one.settings = spec.priority, spec.weight, spec.settings
        chosen.append(one)
    item.deployments = sorted(chosen, key=lambda one: (one.priority, one.id))


def _must_be_a_rank(priority: int, weight: int, where: str) -> None:
    if not 0 <= priority <= 1000:
        raise Invalid("Enter a priority from 0 to 1000.", f"{where}.priority")
    if not 0 <= weight <= 1000:
        raise Invalid("Enter a weight from 0 to 1000.", f"{where}.weight")


def _add_price(item: Model, price: Mapping[str, Any], from_at: datetime) -> Price | None:
    held = item.price_at(from_at)
    terms = prices.read(price)
    if terms == (held.terms if held else prices.UNPRICED):
        return None
    made = Price.of(terms, from_at)
    item.prices.insert(0, made)
    return made
