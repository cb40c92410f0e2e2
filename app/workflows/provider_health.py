"""The health of providers and models: a state, since when, and why.

A provider is judged by its list of models, which is asked for in the background and costs nothing, and by its traffic
(`provider_traffic`) where that is known. The worse of both is told. A model is judged by its own deployments: each by its
provider's list and by its own traffic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import not_, or_, select

from app.clock import from_ms
from app.domain import catalog, providers
from app.domain.catalog import Deployment, Model
from app.domain.providers import Provider
from app.domain.search import one_of
from app.extensions import db
from app.metering import money
from app.workflows import model_lists, provider_traffic
from app.workflows.model_lists import ModelList
from app.workflows.provider_traffic import Traffic

State = Literal["ok", "degraded", "failing", "unknown", "disabled"]
FAILING_AFTER = 3  # failures in a row
ERRORS_SHARE = 0.05  # of the last hour's attempts

_BADNESS: tuple[State, ...] = ("unknown", "ok", "degraded", "failing")  # of two judgements of one provider
_PREFERENCE: tuple[State, ...] = ("ok", "degraded", "unknown", "failing")  # among a model's deployments


class StateOfHealth(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` is a sentence that is safe to show, or None."""

    state: State
    since: datetime | None = None
    reason: str | None = None


class ProviderHealth(msgspec.Struct, kw_only=True):
    """A provider with its health and the last hour's figures, None where they are not known. `requests` and `errors` count
    attempts; `failed_cost` is what failed attempts would cost at the models' prices, of those that told their usage: what the
    operator pays providers is not known."""

    id: str
    name: str
    state: State
    since: datetime | None
    reason: str | None
    requests: int | None
    errors: int | None
    failed_cost: str | None
    models: list[str]


class ModelHealth(msgspec.Struct, kw_only=True):
    """A model that is not well. `served`: an active provider serves it."""

    id: str
    name: str
    state: State
    since: datetime | None
    reason: str | None
    served: bool


def health_of(
    *, status: str, changed_at: datetime | None = None, listing: ModelList | None = None, traffic: Traffic | None = None
) -> StateOfHealth:
    """The health of a provider of this status, which it has had since `changed_at`."""
    if status != "active":
        return StateOfHealth(state="disabled", since=changed_at, reason="The provider is switched off.")
    return max(_by_list(listing), _by_traffic(traffic), key=lambda one: _BADNESS.index(one.state))


def _by_list(listing: ModelList | None) -> StateOfHealth:
    if listing is None:
        return StateOfHealth(state="unknown", reason="It has not been asked yet.")
    since = from_ms(listing.since_ms)
    if listing.failures:
        state: State = "failing" if listing.failures >= FAILING_AFTER else "degraded"
        return StateOfHealth(state=state, since=since, reason=listing.reason)
    if not listing.has_list:
        return StateOfHealth(state="unknown", since=since, reason="It answers, but has no list of models to ask for.")
    return StateOfHealth(state="ok", since=since)


def _by_traffic(traffic: Traffic | None) -> StateOfHealth:
    if traffic is None or not traffic.requests and not traffic.is_open:
        return StateOfHealth(state="unknown")
    if traffic.is_open or traffic.failures >= FAILING_AFTER:
        return StateOfHealth(state="failing", since=traffic.since, reason=traffic.reason or "Its last calls failed.")
    if traffic.failures or traffic.fails_in_part:
        return StateOfHealth(state="degraded", since=traffic.since, reason=traffic.reason or "Its last call failed.")
    if traffic.errors >= traffic.requests * ERRORS_SHARE:
        told = f"{traffic.errors} of {traffic.requests} attempts failed in the last hour."
        return StateOfHealth(state="degraded", reason=f"{told} {traffic.reason or ''}".strip())
    return StateOfHealth(state="ok", since=traffic.since)


def by_provider(items: Sequence[Provider], traffic: Mapping[str, Traffic] | None = None) -> dict[str, StateOfHealth]:
    """Returns the health of these providers by id. Reads `traffic` if it is not given."""
    lists = model_lists.known(items)
    if traffic is None:
        traffic = provider_traffic.of(items)
    return {item.id: _of_way(item, lists.get(item.id), traffic.get(item.id)) for item in items}


def of_all(items: Sequence[Provider], traffic: Mapping[str, Traffic] | None = None) -> list[ProviderHealth]:
    """Returns health, figures and models of each provider, in the order of `items`."""
    if traffic is None:
        traffic = provider_traffic.of(items)
    found, served = by_provider(items, traffic), catalog.models_by_provider()
    rows = []
    for item in items:
        health, figures = found[item.id], traffic.get(item.id)
        rows.append(
            ProviderHealth(
                id=item.id,
                name=item.name,
                state=health.state,
                since=health.since,
                reason=health.reason,
                requests=figures.requests if figures else None,
                errors=figures.errors if figures else None,
                failed_cost=money.text(figures.cost_nano) if figures else None,
                models=served.get(item.id, []),
            )
        )
    return rows


def of_models(models: Sequence[Model]) -> dict[str, StateOfHealth]:
    """Returns the health of each model by id: that of its healthiest deployment, or degraded while another one fails."""
    found = of_deployments([one for model in models for one in model.deployments])
    return {model.id: _of_model(model, found) for model in models}


def of_deployments(
    items: Sequence[Deployment], traffic: Mapping[str, Traffic] | None = None
) -> dict[str, StateOfHealth]:
    """Returns the health of these deployments by id. Reads `traffic`, that of deployments, if it is not given."""
    lists = model_lists.known(list({one.provider_id: one.provider for one in items}.values()))
    if traffic is None:
        traffic = provider_traffic.of_deployments(items)
    return {one.id: _of_way(one.provider, lists.get(one.provider_id), traffic.get(one.id)) for one in items}


def not_well() -> list[ModelHealth]:
    """Returns the models that calls may reach and that are failing or degraded, by name: those that no active provider
    serves too, unless they have no deployment at all.

    It reads no more of the others than the counts of the last hour, so that its cost grows with the trouble alone.
    """
    troubled, tripped = provider_traffic.in_trouble()
    upstreams = {item.id: item for item in db.session.scalars(providers.search())}
    lists = model_lists.known(list(upstreams.values()))
    ids = select(Deployment.model_id).where(
        or_(
            one_of(Deployment.id, sorted(troubled)),
            one_of(Deployment.provider_id, sorted(tripped | {id for id, one in lists.items() if one.failures})),
        )
    )
    query = (
        select(Model.id, Model.name, Deployment.id, Deployment.provider_id)
        .join(Deployment, Deployment.model_id == Model.id)
        .where(Model.status != "disabled", or_(Model.id.in_(ids), not_(catalog.is_served())))
        .order_by(Model.name)
    )
    ways: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for model_id, name, id, provider_id in db.session.execute(query):
        ways.setdefault((model_id, name), []).append((id, provider_id))
    traffic = provider_traffic.by_deployment(
        [way for found in ways.values() for way in found if way[0] in troubled or way[1] in tripped]
    )
    rows = []
    for (model_id, name), found in ways.items():
        told = [_of_way(upstreams[provider_id], lists.get(provider_id), traffic.get(id)) for id, provider_id in found]
        health = _best(told)
        if health.state in ("failing", "degraded"):
            served = any(one.state != "disabled" for one in told)
            rows.append(
                ModelHealth(
                    id=model_id, name=name, state=health.state, since=health.since, reason=health.reason, served=served
                )
            )
    return rows


def _of_way(provider: Provider, listing: ModelList | None, traffic: Traffic | None) -> StateOfHealth:
    """The health of a provider or of one of its deployments, whose traffic this is."""
    return health_of(status=provider.status, changed_at=provider.status_at, listing=listing, traffic=traffic)


def _of_model(model: Model, by_deployment: Mapping[str, StateOfHealth]) -> StateOfHealth:
    if model.status == "disabled":
        return StateOfHealth(state="disabled", since=model.status_at, reason="The model is switched off.")
    return _best([by_deployment[one.id] for one in model.deployments])


def _best(told: Sequence[StateOfHealth]) -> StateOfHealth:
    """The health of a model by that of its deployments."""
    found = sorted((one for one in told if one.state != "disabled"), key=lambda one: _PREFERENCE.index(one.state))
    if not found:
        ends = [one.since for one in told if one.since is not None]
        return StateOfHealth(state="failing", since=max(ends, default=None), reason="No active provider serves it.")
    best, worst = found[0], found[-1]
    if best.state == "ok" and worst.state == "failing":
        failing = sum(one.state == "failing" for one in found)
        reason = f"{failing} of its {len(found)} deployments {'fails' if failing == 1 else 'fail'}."
        return StateOfHealth(state="degraded", since=worst.since, reason=reason)
    return best
