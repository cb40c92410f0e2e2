"""What there is to call: models, the deployments that join them to providers, and their dated prices.

A price is never edited: a change is a new row, and the newest row whose time has come holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import msgspec
from sqlalchemy import ForeignKey, Select, String, Text, cast, func, select
from sqlalchemy.orm import Mapped, mapped_column, relationship, selectinload

from app.directory import Capability, ModelStatus
from app.domain import audit
from app.domain.changes import touch
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.providers import Provider
from app.extensions import Base, db, now
from app.ids import new_id
from app.metering import money

if TYPE_CHECKING:
    from app.domain.identity import Person

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

CAPABILITIES: tuple[str, ...] = get_args(Capability)
STATUSES: tuple[str, ...] = get_args(ModelStatus)
LARGEST_TOKENS = 1_000_000_000

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,199}")


class Model(Base):
    """What people subscribe to and applications name. Prices are read through `price`, newest first in `prices`."""

    __tablename__ = "model"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    display_name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text, default="")
    capabilities: Mapped[list[str]] = mapped_column(default=list)
    features: Mapped[list[str]] = mapped_column(default=list)
    context_window: Mapped[int | None]
    max_output_tokens: Mapped[int | None]
    default_output_tokens: Mapped[int | None]
    restricted: Mapped[bool] = mapped_column(default=False)
    image_tokens: Mapped[int | None]  # the most an image or audio part of a prompt can count; None: the gateway's own
    audio_tokens: Mapped[int | None]
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
        """The price in force now."""
        return self.price_at(now())

    def price_at(self, moment: datetime) -> Price | None:
        held = [price for price in self.prices if price.from_at <= moment]
        return max(held, key=lambda price: (price.from_at, price.id), default=None)

    def summary(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "display_name": self.display_name,
            "capabilities": list(self.capabilities),
            "features": list(self.features),
            "context_window": self.context_window,
            "max_output_tokens": self.max_output_tokens,
            "default_output_tokens": self.default_output_tokens,
            "restricted": self.restricted,
            "status": self.status,
            "price": self.price.decimals() if self.price else None,
            "deployments": [item.summary() for item in self.deployments],
        }


class Deployment(Base):
    """One way to reach a model. Lower priorities are tried first; weights share the calls of one priority."""

    __tablename__ = "deployment"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"), index=True)
    provider_id: Mapped[str] = mapped_column(ForeignKey("provider.id"), index=True)
    upstream_model: Mapped[str] = mapped_column(String(200))
    priority: Mapped[int] = mapped_column(default=0)
    weight: Mapped[int] = mapped_column(default=1)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)

    model: Mapped[Model] = relationship(back_populates="deployments")
    provider: Mapped[Provider] = relationship(back_populates="deployments", lazy="joined")

    def summary(self) -> dict[str, Any]:
        return {
            "provider_id": self.provider_id,
            "upstream_model": self.upstream_model,
            "priority": self.priority,
            "weight": self.weight,
            "settings": self.settings,
        }


PRICES = (
    "input_per_mtok",
    "output_per_mtok",
    "cached_input_per_mtok",
    "per_image",
    "per_audio_minute",
    "per_request",
)


class Price(Base):
    """Nano-units, token prices a million tokens, from an instant on. None is not priced, 0 is free."""

    __tablename__ = "price"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"), index=True)
    from_at: Mapped[datetime] = mapped_column(default=now)
    input_per_mtok: Mapped[int | None]
    output_per_mtok: Mapped[int | None]
    cached_input_per_mtok: Mapped[int | None]
    per_image: Mapped[int | None]
    per_audio_minute: Mapped[int | None]
    per_request: Mapped[int | None]

    def amounts(self) -> dict[str, int | None]:
        return {name: getattr(self, name) for name in PRICES}

    def decimals(self) -> dict[str, str | None]:
        """As the API tells it."""
        return {name: None if value is None else money.text(value) for name, value in self.amounts().items()}


class DeploymentSpec(msgspec.Struct, kw_only=True):
    """A deployment as it is asked for."""

    provider_id: str
    upstream_model: str
    priority: int = 0
    weight: int = 1
    settings: dict[str, Any] = {}


def model(name: str) -> Model:
    """The model of that name; raises `NotFound`."""
    found = find_model(name)
    if found is None:
        raise NotFound(f"There is no model named {name!r}.")
    return found


def model_by_id(id: str) -> Model:
    """The model of that id; raises `NotFound`."""
    found = db.session.get(Model, id)
    if found is None:
        raise NotFound("There is no such model.")
    return found


def find_model(name: str) -> Model | None:
    return db.session.scalar(select(Model).where(Model.name == name))


def all_models(*, search: str | None = None, status: str | None = None, capability: str | None = None) -> Select[Model]:
    """Every model by name, hidden and disabled ones too: for admins."""
    found = select(Model).options(selectinload(Model.deployments)).order_by(Model.name)
    if search:
        found = found.where(
            Model.name.icontains(search, autoescape=True)
            | Model.display_name.icontains(search, autoescape=True)
            | Model.description.icontains(search, autoescape=True)
        )
    if status:
        found = found.where(Model.status == status)
    if capability:
        found = found.where(func.lower(_as_text(Model.capabilities)).contains(f'"{capability}"'))
    return found


def offered_models(*, search: str | None = None, capability: str | None = None) -> Select[Model]:
    """The catalogue that everybody sees: active and deprecated models."""
    return all_models(search=search, capability=capability).where(Model.status.in_(("active", "deprecated")))


def visible_model(person: Person, name: str) -> Model:
    """A model this person may look at: the catalogue's, any they have a live subscription to, all for admins."""
    from app.domain import subscriptions

    found = find_model(name)
    if found is not None and (
        person.sees_everything
        or found.status in ("active", "deprecated")
        or subscriptions.live(person, found) is not None
    ):
        return found
    raise NotFound(f"There is no model named {name!r}.")


def models_by_provider() -> dict[str, list[str]]:
    """The names of the models that each provider serves, by the provider's id."""
    served: dict[str, list[str]] = {}
    query = select(Deployment.provider_id, Model.name).join(Model).distinct().order_by(Model.name)
    for id, name in db.session.execute(query):
        served.setdefault(id, []).append(name)
    return served


def upstream_models_of(item: Provider) -> list[str]:
    """What a provider's deployments are called there."""
    query = select(Deployment.upstream_model).where(Deployment.provider_id == item.id).distinct()
    return sorted(db.session.scalars(query))


def create_model(
    *,
    by: Person | None,
    name: str,
    display_name: str | None = None,
    description: str = "",
    capabilities: Sequence[str] = ("chat",),
    features: Sequence[str] = (),
    context_window: int | None = None,
    max_output_tokens: int | None = None,
    default_output_tokens: int | None = None,
    restricted: bool = False,
    status: str = "active",
    price: Mapping[str, str | None] | None = None,
    deployments: Sequence[DeploymentSpec] = (),
) -> Model:
    """A new model. `price` maps the names of `PRICES` to decimals. Raises `Invalid` or, for a taken name,
    `Conflict`."""
    if not MODEL_NAME.fullmatch(name) or "//" in name or name.endswith("/"):
        raise Invalid("Use 1 to 200 letters, digits and . _ : @ + - /, beginning with a letter or digit.", "name")
    if find_model(name):
        raise Conflict(f"The name {name} is taken.", "name")
    made = Model(id=new_id(), name=name)
    _fill_model(
        made,
        display_name=display_name or name,
        description=description,
        capabilities=capabilities,
        features=features,
        context_window=context_window,
        max_output_tokens=max_output_tokens,
        default_output_tokens=default_output_tokens,
        restricted=restricted,
        status=status,
    )
    db.session.add(made)
    _set_deployments(made, deployments)
    if price is not None:
        _add_price(made, price, now())
    db.session.flush()
    audit.record(by, "model.create", "model", made.id, name=name, after=made.summary())
    touch("directory")
    return made


def update_model(
    item: Model,
    *,
    by: Person | None,
    display_name: str | Unset = UNSET,
    description: str | Unset = UNSET,
    capabilities: Sequence[str] | Unset = UNSET,
    features: Sequence[str] | Unset = UNSET,
    context_window: int | None | Unset = UNSET,
    max_output_tokens: int | None | Unset = UNSET,
    default_output_tokens: int | None | Unset = UNSET,
    restricted: bool | Unset = UNSET,
    status: str | Unset = UNSET,
    price: Mapping[str, str | None] | None | Unset = UNSET,
    deployments: Sequence[DeploymentSpec] | Unset = UNSET,
) -> Model:
    """Changes what is given; a price that differs from the present one holds from now on."""
    before = item.summary()
    _fill_model(
        item,
        display_name=item.display_name if display_name is UNSET else display_name,
        description=item.description if description is UNSET else description,
        capabilities=item.capabilities if capabilities is UNSET else capabilities,
        features=item.features if features is UNSET else features,
        context_window=item.context_window if context_window is UNSET else context_window,
        max_output_tokens=item.max_output_tokens if max_output_tokens is UNSET else max_output_tokens,
        default_output_tokens=item.default_output_tokens if default_output_tokens is UNSET else default_output_tokens,
        restricted=item.restricted if restricted is UNSET else restricted,
        status=item.status if status is UNSET else status,
    )
    if deployments is not UNSET:
        _set_deployments(item, deployments)
    if price is not UNSET:
        _add_price(item, price or {}, now())
    item.updated_at = now()
    db.session.flush()
    audit.record(by, "model.update", "model", item.id, name=item.name, before=before, after=item.summary())
    touch("directory")
    return item


def set_price(item: Model, *, by: Person | None, price: Mapping[str, str | None], from_at: datetime) -> Price | None:
    """Plans a price from an instant on, now or later; None when it is the one that holds then already.

    Raises `Invalid` for an instant in the past: what was charged stays explained.
    """
    if from_at < now().replace(microsecond=0):
        raise Invalid("A price can begin now or later, not in the past.", "from")
    made = _add_price(item, price, from_at)
    if made:
        db.session.flush()
        after = {"from": from_at.isoformat(), "price": made.decimals()}
        audit.record(by, "price.set", "model", item.id, name=item.name, after=after)
        touch("directory")
    return made


def price_of(id: str) -> Price | None:
    """The price of that id: what an entry of the books was charged by. None when its model has been removed."""
    return db.session.get(Price, id)


def delete_model(item: Model, *, by: Person | None) -> None:
    """Removes a model with its deployments and prices; live subscriptions to it are cancelled."""
    from app.domain import subscriptions

    subscriptions.cancel_all_of(item, by=by, reason="The model was removed.")
    audit.record(by, "model.delete", "model", item.id, name=item.name, before=item.summary(), after={})
    db.session.delete(item)
    db.session.flush()
    touch("directory")


def _fill_model(
    item: Model,
    *,
    display_name: str,
    description: str,
    capabilities: Sequence[str],
    features: Sequence[str],
    context_window: int | None,
    max_output_tokens: int | None,
    default_output_tokens: int | None,
    restricted: bool,
    status: str,
) -> None:
    if len(display_name) > 200:
        raise Invalid("Use at most 200 characters.", "display_name")
    if len(description) > 20_000:
        raise Invalid("Use at most 20000 characters.", "description")
    if not capabilities or any(capability not in CAPABILITIES for capability in capabilities):
        raise Invalid(f"Choose at least one of {', '.join(CAPABILITIES)}.", "capabilities")
    if len(features) > 50 or any(not word.strip() or len(word) > 50 for word in features):
        raise Invalid("Use at most 50 words of at most 50 characters.", "features")
    if status not in STATUSES:
        raise Invalid(f"Choose one of {', '.join(STATUSES)}.", "status")
    tokens = {
        "context_window": context_window,
        "max_output_tokens": max_output_tokens,
        "default_output_tokens": default_output_tokens,
    }
    for name, value in tokens.items():
        if value is not None and not 1 <= value <= LARGEST_TOKENS:
            raise Invalid(f"Give a number from 1 to {LARGEST_TOKENS}, or nothing.", name)
        setattr(item, name, value)
    item.display_name = display_name.strip() or item.name
    item.description = description
    item.capabilities = [capability for capability in CAPABILITIES if capability in capabilities]
    item.features = list(dict.fromkeys(word.strip() for word in features))
    item.restricted = restricted
    item.status = status


def _set_deployments(item: Model, wanted: Sequence[DeploymentSpec]) -> None:
    """Makes the deployments be those wanted; one that stays the same keeps its id."""
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
            raise Invalid("Give the model's name at the provider, at most 200 characters.", f"{where}.upstream_model")
        if not 0 <= spec.priority <= 1000:
            raise Invalid("Give a priority from 0 to 1000.", f"{where}.priority")
        if not 0 <= spec.weight <= 1000:
            raise Invalid("Give a weight from 0 to 1000.", f"{where}.weight")
        name = (spec.provider_id, spec.upstream_model.strip())
        one = existing.pop(name, None)
        if one is None:
            if any((other.provider_id, other.upstream_model) == name for other in chosen):
                raise Invalid("This deployment is listed twice.", where)
            one = Deployment(id=new_id(), provider=upstream, provider_id=name[0], upstream_model=name[1])
        one.priority, one.weight, one.settings = spec.priority, spec.weight, spec.settings
        chosen.append(one)
    item.deployments = sorted(chosen, key=lambda one: (one.priority, one.id))


def _add_price(item: Model, price: Mapping[str, str | None], from_at: datetime) -> Price | None:
    amounts: dict[str, int | None] = {}
    for name in PRICES:
        text = price.get(name)
        try:
            amounts[name] = None if text is None or text == "" else money.parse(text)
        except money.MoneyError as error:
            raise Invalid(f"This price is not usable: {error}.", f"price.{name}") from None
    held = item.price_at(from_at)
    if (held.amounts() if held else dict.fromkeys(PRICES)) == amounts:
        return None
    made = Price(id=new_id(), from_at=from_at, **amounts)
    item.prices.insert(0, made)
    return made


def _as_text(column: Any) -> Any:
    """A JSON column as its text, to search in."""
    return cast(column, Text)
