"""Route preview: which deployment would serve a request to /v1, and why not the others, without sending it.

It uses the gateway's own routing plan; keys, limits and budgets are not considered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from redis import RedisError

from app import clock, current
from app import providers as adapters
from app.domain import catalog, providers
from app.domain.errors import Invalid
from app.domain.providers import Endpoint
from app.gateway import routing
from app.gateway.breakers import Trips
from app.gateway.endpoints import ENDPOINTS
from app.gateway.routing import Candidate, Known, Steering
from app.workflows import provider_traffic, publication


class Way(msgspec.Struct, kw_only=True):
    """A deployment of the model: whether it would be used, in which order, and why. `breaker` is its circuit breaker's
    state."""

    deployment_id: str
    provider_id: str
    provider: str
    upstream_model: str
    priority: int
    weight: int
    usable: bool
    reason: str
    breaker: Literal["closed", "open", "half-open"] = "closed"


class RoutePreview(msgspec.Struct, kw_only=True):
    """`result` is "served", "endpoint_disabled", "model_not_found", "not_capable" or "no_deployment"; `deployment` is the
    one that would be used first."""

    result: str
    reason: str
    deployment: Way | None = None
    candidates: list[Way] = []


def preview(endpoint: Endpoint, request: Mapping[str, Any]) -> RoutePreview:
    """Preview the route of a request body. Raises `Invalid` if it names no model, or its provider fields are invalid."""
    capability, name = ENDPOINTS[endpoint.id].capability, request.get("model")
    if capability is not None and not (isinstance(name, str) and name):
        raise Invalid("Enter the model of the request.", "request.model")
    steering = _steering(request)
    if not endpoint.active:
        return RoutePreview(result="endpoint_disabled", reason=f"{endpoint.path} is disabled.")
    if capability is None or not isinstance(name, str):
        return RoutePreview(result="served", reason="The gateway answers this endpoint itself, without a deployment.")
    model = _model_for(name)
    if model is None or model.status == "disabled":
        why = "This model does not exist." if model is None else "The model is disabled."
        return RoutePreview(result="model_not_found", reason=why)
    if capability not in model.capabilities:
        offers = ", ".join(model.capabilities)
        return RoutePreview(
            result="not_capable", reason=f"The model does not support {endpoint.path}; it supports {offers}."
        )
    record = publication.model_record(model)
    rows = {one.provider_id: one.provider for one in model.deployments}
    known = {id: Known(publication.provider_record(row), adapters.adapter(row.kind)) for id, row in rows.items()}
    path = publication.endpoint_record(endpoint)
    now_ms = clock.now_ms()
    planned = routing.plan(record, capability, known, path, steering, lambda one: -one.weight, _trips(), now_ms)
    usable = [one for one in planned if one.hindrance is None]
    ways = [_way(one, place, now_ms) for place, one in enumerate(planned, 1)]
    if not usable:
        return RoutePreview(result="no_deployment", reason="No deployment of the model can be used.", candidates=ways)
    first = usable[0]
    return RoutePreview(
        result="served",
        reason=f"{first.provider.name} serves {'it' if model.name == name else model.name} as"
        f" {first.deployment.upstream_model}, priority"
        f" {first.deployment.priority}{_share(usable, steering)}.",
        deployment=ways[0],
        candidates=ways,
    )


def of_model(model: catalog.Model) -> RoutePreview:
    """What a request to the first path that the model can be used with would meet."""
    for endpoint in ENDPOINTS.values():
        if endpoint.capability in model.capabilities:
            return preview(providers.endpoint(endpoint.id), {"model": model.name})
    return RoutePreview(result="not_capable", reason="No path of /v1 serves what the model can do.")


def _share(usable: list[Candidate], steering: Steering) -> str:
    """The first deployment's share of the calls, if others have the same priority."""
    first = usable[0].deployment
    if steering.provider is not None:
        return ""
    weights = [one.deployment.weight for one in usable if one.deployment.priority == first.priority]
    total = sum(weights)
    return f"; it gets {first.weight} of {total} of the calls by its weight" if len(weights) > 1 and total else ""


def _model_for(name: str) -> catalog.Model | None:
    """The model that serves calls of `name`, as the gateway finds it."""
    default = current.config().gateway.default_model
    found = catalog.find_called(name)
    return catalog.find_called(default) if found is None and default is not None else found


def _trips() -> Trips:
    """The circuit breakers as the gateway knows them; all closed while Redis does not answer."""
    try:
        return provider_traffic.trips(current.redis())
    except RedisError:
        return routing.CLOSED


def _way(one: Candidate, place: int, now_ms: int) -> Way:
    deployment, trip = one.deployment, one.trip
    is_open = trip is not None and trip.is_open(now_ms)
    reason = one.hindrance or f"Used in place {place}."
    if one.hindrance is None and trip is not None:
        reason = (
            f"Used in place {place} although its circuit breaker is open, as no other is closed: {trip.reason}"
            if is_open
            else f"Used in place {place}: its circuit breaker is half-open, and a call tries whether it is well again."
        )
    return Way(
        deployment_id=deployment.id,
        provider_id=one.provider.id,
        provider=one.provider.name,
        upstream_model=deployment.upstream_model,
        priority=deployment.priority,
        weight=deployment.weight,
        usable=one.hindrance is None,
        reason=reason,
        breaker="closed" if trip is None else "open" if is_open else "half-open",
    )


def _steering(request: Mapping[str, Any]) -> Steering:
    """`provider` and `fallback_providers` of the request. Raises `Invalid`."""
    first, fallbacks = request.get("provider"), request.get("fallback_providers") or []
    if first is not None and not isinstance(first, str):
        raise Invalid("Enter a provider's name or id.", "request.provider")
    if not isinstance(fallbacks, list) or any(not isinstance(word, str) for word in fallbacks):
        raise Invalid("Enter a list of provider names or ids.", "request.fallback_providers")
    return Steering(first, tuple(fallbacks)) if first is not None or fallbacks else routing.FREE
