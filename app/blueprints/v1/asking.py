"""From a request's body to a call: read, taken apart, checked, its model found."""

from __future__ import annotations

from app.blueprints.v1.guard import check_endpoint, read_body
from app.blueprints.v1.visit import Visit
from app.directory import CallerRecord, Capability
from app.gateway.call import Call
from app.gateway.envelope import open_envelope
from app.gateway.errors import bad_request, routing_fixed, unknown_model
from app.gateway.requests import OUTPUT_LIMITS, STEERING, Steered, parse, priced_apart, size_of
from app.providers.base import Demand


def call_for(visit: Visit, caller: CallerRecord, capability: Capability, kind: type[Steered]) -> Call:
    """The call that this request asks for. Raises `ApiError` for whatever is wrong with it."""
    check_endpoint(visit, visit.route)
    body = read_body(visit)
    members, values = open_envelope(body)
    asked = parse(kind, values, members)
    if caller.routing == "fixed" and (asked.provider is not None or asked.fallback_providers):
        raise routing_fixed()
    model = visit.runtime.routes.model(asked.model) if caller.may_call(asked.model) else None
    if model is None:
        raise unknown_model(asked.model)
    if capability not in model.capabilities:
        offers = ", ".join(model.capabilities) or "nothing"
        raise bad_request(f"The model '{model.name}' can't be used with {visit.route}; it offers {offers}.", "model")
    bound = asked.bound(size_of(body), members, model, priced_apart(asked, values))
    for name in STEERING if not bound.produces_output else STEERING + OUTPUT_LIMITS:
        members.pop(name, None)
    demand = Demand(
        capability=capability,
        model=model.name,
        members=members,
        parsed=asked,
        stream=bool(getattr(asked, "stream", False)),
        include_usage=bool(getattr(asked, "include_usage", False)),
        prompt_estimate=bound.usual_input,
        max_output=bound.output,
    )
    return Call(
        visit.id, visit.route, capability, caller, model, demand, bound, asked.provider, asked.fallback_providers,
        visit.origin,
    )  # fmt: skip
