"""The model catalogue: what a person can see and find in it, and the effects of model changes on subscribers.

It is above models and subscriptions, which do not import each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    union,
    union_all,
)
from sqlalchemy.orm import lazyload

from app.clock import now
from app.domain import catalog, keys, subscriptions
from app.domain.catalog import OFFERED, Deployment, Model
from app.domain.errors import NotFound
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.providers import Provider
from app.domain.search import among, one_of
from app.domain.subscriptions import Subscription
from app.extensions import db

NEW_FOR = timedelta(days=14)
ACCESSES = ("subscribed", "restricted", "open")
STATUSES = ("available", "failing", "unavailable", "deprecated", "new")


class CatalogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The filters of the catalogue; None means no filter. Prices are nano-units per million input tokens. `failing` has the ids
    of the models that fail now (`provider_health`), which the filter by status needs."""

    search: str | None = None
    provider: str | None = None
    capability: str | None = None
    feature: str | None = None
    access: str | None = None
    status: str | None = None
    least_nano: int | None = None
    most_nano: int | None = None
    context: int | None = None
    failing: frozenset[str] = frozenset()


class Facet(msgspec.Struct, frozen=True):
    """A value of a filter, its label, and how many models match it."""

    value: str
    label: str
    count: int


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of a model affects: the numbers of live and active subscriptions, and of keys that can call it."""

    live: int
    active: int
    keys: int


def visible(person: Person, name: str) -> Model:
    """The model with this name if the person can see it: those of the catalogue, those that they have a live subscription
    to, and all for admins. Raises `NotFound`."""
    found = catalog.find_model(name)
    if found is not None and (
        person.sees_everything or found.status in OFFERED or subscriptions.live(person, found) is not None
    ):
        return found
    raise NotFound(f"No model has the name {name!r}.")


def find(person: Person, filters: CatalogFilter) -> Select[Model]:
    """A query of the available models that match the filters, by display name."""
    return select(Model).where(*_conditions(person, filters)).order_by(func.lower(Model.display_name), Model.name)


def columns() -> dict[str, Any]:
    """The columns that lists of models are sorted by; prices are the current ones."""
    return {
        "name": func.lower(Model.display_name),
        "created": Model.created_at,
        "price": catalog.price_now("input_per_mtok"),
        "output": catalog.price_now("output_per_mtok"),
        "context": Model.context_window,
        "longest": Model.max_output_tokens,
        "status": Model.status,
        "restricted": Model.restricted,
        "subscribers": subscriber_count(),
    }


def facets(person: Person, filters: CatalogFilter) -> dict[str, list[Facet]]:
    """The values of each filter, with the number of models that match them and all other filters."""
    parts = [_providers(_conditions(person, filters, without="provider"))]
    for name, column in (("capability", Model.capabilities), ("feature", Model.features)):
        parts.append(_words(name, column, _conditions(person, filters, without=name)))
    fixed = {"access": ACCESSES, "status": STATUSES}
    for name, values in fixed.items():
        where = _conditions(person, filters, without=name)
        parts += [_counted(name, value, [_is(person, filters, value), *where]) for value in values]
    found: dict[str, list[Facet]] = {name: [] for name in ("provider", "capability", "feature", *fixed)}
    for name, value, label, count in db.session.execute(union_all(*parts)):
        found[name].append(Facet(value, label or value[:1].upper() + value[1:], count))
    found["provider"].sort(key=lambda facet: facet.label.casefold())
    for name in ("capability", "feature"):
        found[name].sort(key=lambda facet: (-facet.count, facet.value))
    for name, values in fixed.items():
        found[name].sort(key=lambda facet: values.index(facet.value))
    return found


def access(person: Person, model_ids: Collection[str] | None = None) -> dict[str, Subscription]:
    """The person's own newest subscription to each of these models, or to all models, by model id."""
    query = (
        select(Subscription)
        .where(subscriptions.pays_for(person.id, None), Subscription.model_id.is_not(None))
        .options(lazyload(Subscription.model), lazyload(Subscription.person))
        .order_by(Subscription.id)
    )
    if model_ids is not None:
        query = query.where(Subscription.model_id.in_(model_ids))
    return {str(found.model_id): found for found in db.session.scalars(query)}


def newest(limit: int) -> list[Model]:
    """The newest models of the catalogue."""
    query = select(Model).where(Model.status.in_(OFFERED)).order_by(Model.created_at.desc(), Model.id.desc())
    return list(db.session.scalars(query.limit(limit).options(catalog.with_deployments())).unique())


def is_new(model: Model) -> bool:
    return model.created_at > now() - NEW_FOR


def effect(model: Model) -> Effect:
    return Effect(
        live=subscriptions.live_count(model), active=subscriptions.active_count(model), keys=keys.count_using(model)
    )


def subscribers(model_ids: Iterable[str]) -> dict[str, int]:
    """The number of active subscriptions to each of these models, by model id: pending ones use nothing yet."""
    query = (
        select(Subscription.model_id, func.count())
        .where(Subscription.model_id.in_(list(model_ids)), Subscription.status.in_(("active",)))
        .group_by(Subscription.model_id)
    )
    return {str(id): count for id, count in db.session.execute(query)}


def key_counts(models: Collection[Model]) -> dict[str, int]:
    """The number of active keys that can call each of these models, by model id: `keys.count_using` for many models."""
    asked = Subscription.model_id.in_([item.id for item in models]), Subscription.status.in_(("active",))
    may = or_(catalog.has_no_word(ApiKey.models), catalog.has_word(ApiKey.models, Subscription.model_name))
    both: Any = select(Subscription.model_id, ApiKey.id)
    pairs: Select[Any] = keys.filtered(both, status="active").where(*asked, may)
    is_own = Subscription.team_id.is_(None)
    people = select(Subscription.person_id).where(*asked, is_own)
    joined = select(Subscription.team_id).where(*asked, ~is_own)
    found = union(
        pairs.where(
            is_own,
            ApiKey.team_id.is_(None),
            ApiKey.person_id == Subscription.person_id,
            among(ApiKey.person_id, people.distinct()),
        ),
        pairs.where(ApiKey.team_id == Subscription.team_id, among(ApiKey.team_id, joined.distinct())),
    ).subquery()
    query = select(found.c.model_id, func.count()).group_by(found.c.model_id)
    counted = {str(id): count for id, count in db.session.execute(query)}
    return {item.id: counted.get(item.id, 0) for item in models}


def subscriber_count() -> Any:
    """The number of a model's active subscriptions as SQL, to sort by."""
    return (
        select(func.count())
        .where(Subscription.model_id == Model.id, Subscription.status.in_(("active",)))
        .correlate(Model)
        .scalar_subquery()
    )


def change(item: Model, *, by: Person | None, **changes: Any) -> Model:
    """Change a model as `catalog.update_model` does. If it becomes restricted, its active subscriptions become pending, and
    an admin decides about each; if it becomes unrestricted, its pending subscriptions become active."""
    was_restricted = item.restricted
    catalog.update_model(item, by=by, **changes)
    if item.restricted and not was_restricted:
        subscriptions.pend_all_of(item, by=by)
    elif was_restricted and not item.restricted:
        subscriptions.admit_all_of(item, by=by)
    return item


def delete(item: Model, *, by: Person | None) -> None:
    """Delete a model with its deployments and prices, and cancel its live subscriptions."""
    subscriptions.cancel_all_of(item, by=by, reason="The model was deleted.")
    catalog.remove_model(item, by=by)


def _conditions(person: Person, filters: CatalogFilter, *, without: str | None = None) -> list[ColumnElement[bool]]:
    """The conditions of the filters, except of the one named `without`."""
    price = catalog.price_now("input_per_mtok")
    asked: dict[str, ColumnElement[bool]] = {}
    if filters.search:
        asked["search"] = catalog.matches(filters.search)
    if filters.provider:
        asked["provider"] = catalog.served_by(filters.provider)
    if filters.capability:
        asked["capability"] = catalog.has_word(Model.capabilities, filters.capability)
    if filters.feature:
        asked["feature"] = catalog.has_word(Model.features, filters.feature)
    if filters.access:
        asked["access"] = _is(person, filters, filters.access)
    if filters.status:
        asked["status"] = _is(person, filters, filters.status)
    if filters.least_nano is not None:
        asked["least"] = price >= filters.least_nano
    if filters.most_nano is not None:
        asked["most"] = price <= filters.most_nano
    if filters.context is not None:
        asked["context"] = Model.context_window >= filters.context
    return [Model.status.in_(OFFERED), *(condition for name, condition in asked.items() if name != without)]


def _is(person: Person, filters: CatalogFilter, value: str) -> ColumnElement[bool]:
    """The condition for one of `ACCESSES` or `STATUSES`. Raises `ValueError` for another value."""
    match value:
        case "subscribed":
            return exists().where(
                Subscription.model_id == Model.id,
                subscriptions.pays_for(person.id, None),
                Subscription.status == "active",
            )
        case "restricted":
            return Model.restricted.is_(true())
        case "open":
            return Model.restricted.is_(false())
        case "available":
            return and_(Model.status == "active", catalog.is_served(), not_(one_of(Model.id, sorted(filters.failing))))
        case "failing":
            return one_of(Model.id, sorted(filters.failing))
        case "deprecated":
            return Model.status == "deprecated"
        case "unavailable":
            return not_(catalog.is_served())
        case "new":
            return Model.created_at > now() - NEW_FOR
    raise ValueError(f"no such filter: {value}")


def _counted(facet: str, value: str, where: list[ColumnElement[bool]]) -> Any:
    return select(literal(facet), literal(value), literal(""), func.count()).select_from(Model).where(*where)


def _words(facet: str, column: Any, where: list[ColumnElement[bool]]) -> Any:
    words = catalog.words_of(column)
    query = select(literal(facet), words.c.value, literal(""), func.count())
    query = query.select_from(Model).join(words, true())
    return query.where(*where).group_by(words.c.value)


def _providers(where: list[ColumnElement[bool]]) -> Any:
    query = select(literal("provider"), Provider.id, Provider.name, func.count(func.distinct(Model.id)))
    query = query.select_from(Model).join(Deployment, Deployment.model_id == Model.id)
    query = query.join(Provider, Provider.id == Deployment.provider_id)
    return query.where(*where).group_by(Provider.id, Provider.name)
