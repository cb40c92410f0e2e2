"""What a request to /v1 would meet, told without sending it: which deployment would serve it, and why not the others.

It judges by the same facts as the gateway, in the order in which the gateway looks at them; keys, limits and budgets
play no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from app import providers as adapters
from app.domain import catalog
from app.domain.catalog import Deployment
from app.domain.errors import Invalid
from app.domain.providers import Endpoint
from app.gateway.endpoints import ENDPOINTS


class Way(msgspec.Struct, kw_only=True):
    """A deployment of the model: whether it would be tried, in which order, and why."""

    deployment_id: str
    provider_id: str
    provider: str
    upstream_model: str
    priority: int
    weight: int
    usable: bool
    reason: str


class Rehearsal(msgspec.Struct, kw_only=True):
    """`result` is served, endpoint_disabled, model_not_found, not_capable or no_deployment; `deployment` is the way
    that would be tried first."""

    result: str
    reason: str
    deployment: Way | None = None
    candidates: list[Way] = []


def rehearse(endpoint: Endpoint, request: Mapping[str, Any]) -> Rehearsal:
    """Raises `Invalid` for a request that names no model or steers by something that is no name."""
    capability, name = ENDPOINTS[endpoint.id].capability, request.get("model")
    if capability is not None and not (isinstance(name, str) and name):
        raise Invalid("Give the request's model.", "request.model")
    wanted = _steering(request)
    if not endpoint.active:
        return Rehearsal(result="endpoint_disabled", reason=f"{endpoint.path} is switched off.")
    if capability is None or not isinstance(name, str):
        return Rehearsal(result="served", reason="This path asks no deployment; the gateway answers it.")
    model = catalog.find_model(name)
    if model is None or model.status == "disabled":
        why = "There is no such model." if model is None else "The model is disabled."
        return Rehearsal(result="model_not_found", reason=why)
    if capability not in model.capabilities:
        offers = ", ".join(model.capabilities)
        return Rehearsal(
            result="not_capable", reason=f"The model cannot be used with {endpoint.path}; it offers {offers}."
        )
    ways = [_way(one, endpoint, capability) for one in model.deployments]
    usable = [way for way in ways if way.usable]
    usable.sort(key=lambda way: (way.priority, -way.weight, way.deployment_id))
    first, fallbacks = wanted
    named = [way for word in (first, *fallbacks) if word for way in usable if word in (way.provider, way.provider_id)]
    if first is not None:
        for way in usable:
            if way not in named:
                way.usable, way.reason = False, "The request steers to other providers."
        usable = named
    elif named:
        usable = [way for way in usable if way not in named] + named
    if not usable:
        return Rehearsal(result="no_deployment", reason="No deployment of the model can be used.", candidates=ways)
    for place, way in enumerate(usable, 1):
        way.reason = f"Tried in place {place}." if way.reason == "" else way.reason
    chosen = usable[0]
    rivals = [way for way in usable if way.priority == chosen.priority] if first is None else [chosen]
    total = sum(way.weight for way in rivals)
    share = f"; it gets {chosen.weight} of {total} of the calls by its weight" if len(rivals) > 1 and total else ""
    order = [*usable, *(way for way in ways if not way.usable)]
    return Rehearsal(
        result="served",
        reason=f"{chosen.provider} serves it as {chosen.upstream_model}, priority {chosen.priority}{share}.",
        deployment=chosen,
        candidates=order,
    )


def _way(one: Deployment, endpoint: Endpoint, capability: str) -> Way:
    reason = ""
    if one.provider.status != "active":
        reason = "Its provider is disabled."
    elif endpoint.providers and one.provider_id not in endpoint.providers:
        reason = f"{endpoint.path} may not use its provider."
    elif capability not in adapters.adapter(one.provider.kind).abilities:
        reason = f"Providers of the kind {one.provider.kind} cannot do {capability}."
    return Way(
        deployment_id=one.id,
        provider_id=one.provider_id,
        provider=one.provider.name,
        upstream_model=one.upstream_model,
        priority=one.priority,
        weight=one.weight,
        usable=not reason,
        reason=reason,
    )


def _steering(request: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """`provider` and `fallback_providers` of the request."""
    first, fallbacks = request.get("provider"), request.get("fallback_providers") or []
    if first is not None and not isinstance(first, str):
        raise Invalid("Give a provider's name or id.", "request.provider")
    if not isinstance(fallbacks, list) or any(not isinstance(word, str) for word in fallbacks):
        raise Invalid("Give a list of names or ids of providers.", "request.fallback_providers")
    return first, fallbacks
