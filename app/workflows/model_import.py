"""Imports models that a provider lists: pre-filled from the catalogue of known models, published in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.domain import catalog
from app.domain.catalog import CAPABILITIES, MODEL_NAME, DeploymentSpec, Model
from app.domain.errors import DomainError, Invalid
from app.domain.person import Person
from app.domain.providers import Provider
from app.extensions import db
from app.providers.model_list import ListedModel
from app.workflows import known_models
from app.workflows.known_models import KnownModel


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A model to publish. `price` has a decimal for each member of a price, None if not priced; `bands` has the amounts
    for service tiers and long prompts."""

    upstream_model: str
    name: str
    capability: str
    features: tuple[str, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    price: Mapping[str, str | None] = {}
    bands: Mapping[str, Any] = {}


class Refused(Invalid):
    """Nothing was published. `faults` has the reasons by index of the draft."""

    def __init__(self, faults: Mapping[int, DomainError]) -> None:
        super().__init__("Nothing was published: some models can't be used as they are.")
        self.faults = faults


def draft(kind: str, listed: ListedModel, *, currency: str) -> Draft:
    """Returns the pre-filled draft of a listed model. The provider's own limits override the known ones. Prices are
    known in US dollars only."""
    known = known_models.find(kind, listed.id)
    told = listed.capability or known_models.guessed_capability(listed.id)
    capability = known.capability if known else told
    known = known or KnownModel(capability=capability)
    is_priced = bool(known.price) and currency == known_models.CURRENCY
    return Draft(
        upstream_model=listed.id,
        name=listed.id if MODEL_NAME.fullmatch(listed.id) else "",
        capability=capability if capability in CAPABILITIES else CAPABILITIES[0],
        features=tuple(dict.fromkeys((*known.features, *listed.features))),
        context_window=listed.context_window or known.context_window,
        max_output_tokens=listed.max_output_tokens or known.max_output_tokens,
        price=known.price if is_priced else {},
        bands=_bands(known) if is_priced else {},
    )


def publish(
    item: Provider, drafts: Sequence[Draft], *, by: Person | None, status: str, restricted: bool
) -> list[Model]:
    """Creates a model and its deployment from each draft, all or none. Raises `Refused`."""
    made: list[Model] = []
    faults: dict[int, DomainError] = {}
    for place, one in enumerate(drafts):
        try:
            with db.session.begin_nested():
                made.append(_create(item, one, by=by, status=status, restricted=restricted))
        except DomainError as error:
            faults[place] = error
    if faults:
        raise Refused(faults)
    return made


def _create(item: Provider, one: Draft, *, by: Person | None, status: str, restricted: bool) -> Model:
    price = {**one.price, **one.bands}
    return catalog.create_model(
        by=by,
        name=one.name,
        status=status,
        restricted=restricted,
        capabilities=[one.capability],
        features=list(one.features),
        context_window=one.context_window,
        max_output_tokens=one.max_output_tokens,
        price=price if any(amount is not None for amount in price.values()) else None,
        deployments=[DeploymentSpec(provider_id=item.id, upstream_model=one.upstream_model)],
    )


def _bands(known: KnownModel) -> dict[str, Any]:
    bands: dict[str, Any] = {"tiers": known.tiers} if known.tiers else {}
    return bands | ({"long_context": known.long_context} if known.long_context else {})
