"""Route preview: which deployment would serve a request to /v1, and why not the others, without sending it.

It uses the gateway's own routing plan; keys, limits and budgets are not considered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from app import providers as adapters
from app.domain import catalog
from app.domain.errors import Invalid
from app.domain.providers import Endpoint
from app.gateway import routing
from app.gateway.endpoints import ENDPOINTS
from app.gateway.routing import Candidate, Known, Steering
from app.workflows import publication


class Way(msgspec.Struct, kw_only=True):
    """A deployment of the model: whether it would be used, in which order, and why."""

    deployment_id: str
    provider_id: str
    provider: str
    upstream_model: str
    priority: int
    weight: int
    usable: bool
    reason: str


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
    model = catalog.find_model(name)
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
    planned = routing.plan(record, capability, known, path, steering, lambda one: -one.weight)
    usable = [one for one in planned if one.hindrance is None]
    ways = [_way(one, place) for place, one in enumerate(planned, 1)]
    if not usable:
        return RoutePreview(result="no_deployment", reason="No deployment of the model can be used.", candidates=ways)
    first = usable[0]
    return RoutePreview(
        result="served",
        reason=f"{first.provider.name} serves it as {first.deployment.upstream_model}, priority"
        f" {first.deployment.priority}{_share(usable, steering)}.",
        deployment=ways[0],
        candidates=ways,
    )


def _share(usable: list[Candidate], steering: Steering) -> str:
    """The first deployment's share of the calls, if others have the same priority."""
    first = usable[0].deployment
    if steering.provider is not None:
        return ""
    weights = [one.deployment.weight for one in usable if one.deployment.priority == first.priority]
    total = sum(weights)
    return f"; it gets {first.weight} of {total} of the calls by its weight" if len(weights) > 1 and total else ""


def _way(one: Candidate, place: int) -> Way:
    deployment = one.deployment
    return Way(
        deployment_id=deployment.id,
        provider_id=one.provider.id,
        provider=one.provider.name,
        upstream_model=deployment.upstream_model,
        priority=deployment.priority,
        weight=deployment.weight,
        usable=one.hindrance is None,
        reason=one.hindrance or f"Used in place {place}.",
    )


def _steering(request: Mapping[str, Any]) -> Steering:
    """`provider` and `fallback_providers` of the request. Raises `Invalid`."""
    first, fallbacks = request.get("provider"), request.get("fallback_providers") or []
    if first is not None and not isinstance(first, str):
        raise Invalid("Enter a provider's name or id.", "request.provider")
    if not isinstance(fallbacks, list) or any(not isinstance(word, str) for word in fallbacks):
        raise Invalid("Enter a list of provider names or ids.", "request.fallback_providers")
    return Steering(first, tuple(fallbacks)) if first is not None or fallbacks else routing.FREE
