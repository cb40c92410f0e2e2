"""From a request's body to a call: read, taken apart, checked, its model found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.blueprints.v1.guard import check_endpoint, read_body
from app.blueprints.v1.visit import Visit
from app.directory import CallerRecord, Capability, Model
from app.gateway.call import Call
from app.gateway.envelope import open_envelope
from app.gateway.errors import bad_request, routing_fixed, unknown_model
from app.gateway.requests import STEERING, Steered, parse
from app.metering.pricing import Bound
from app.providers.base import Demand


def call_for(
    visit: Visit,
    caller: CallerRecord,
    capability: Capability,
    kind: type[Steered],
    bound_of: Callable[[Any, dict[str, bytes], Model], Bound],
) -> Call:
    """The call that this request asks for. Raises `ApiError` for whatever is wrong with it."""
    check_endpoint(visit, visit.route)
    members, values = open_envelope(read_body(visit))
    asked = parse(kind, values, members)
    if caller.routing == "fixed" and (asked.provider is not None or asked.fallback_providers):
        raise routing_fixed()
    model = visit.runtime.routes.model(asked.model) if caller.may_call(asked.model) else None
    if model is None:
        raise unknown_model(asked.model)
    if capability not in model.capabilities:
        offers = ", ".join(model.capabilities) or "nothing"
        raise bad_request(f"The model '{model.name}' can't be used with {visit.route}; it offers {offers}.", "model")
    for name in STEERING:
        members.pop(name, None)
    bound = bound_of(asked, members, model)
    demand = Demand(
        capability=capability,
        model=model.name,
        members=members,
        parsed=asked,
        stream=bool(getattr(asked, "stream", False)),
        include_usage=bool(getattr(asked, "include_usage", False)),
        prompt_estimate=-(-bound.input // 4),
    )
    return Call(
        visit.id, visit.route, capability, caller, model, demand, bound, asked.provider, asked.fallback_providers,
        visit.origin,
    )  # fmt: skip
