"""`GET /v1/models` and `/v1/models/{id}`: exactly what this key may call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app import clock
from app.blueprints.v1.http import Answer, Request
from app.blueprints.v1.serve import own
from app.directory import CallerRecord, Model
from app.gateway.admission import catalogue_page, check_endpoint
from app.gateway.endpoints import MODELS
from app.gateway.errors import unknown_model
from app.metering import money


def list_models(request: Request, caller: CallerRecord) -> Answer:
    check_endpoint(request.runtime, caller, MODELS)
    routes = request.runtime.routes
    models = [model for name in caller.callable_models() if (model := routes.model(name)) is not None]
    provider = request.query.get("provider")
    if provider:
        models = [model for model in models if provider in routes.provider_names(model)]
    data = [_shown(model, request.runtime.config.portal.currency) for model in models]
    names = [model.name for model in models]
    # The lists of OpenAI and of Anthropic are at the same path: one answer has what the readers of both look for.
    ends = {"has_more": False, "first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return own(request, {"object": "list", "data": data, **ends})


def show_model(request: Request, caller: CallerRecord, name: str) -> Answer:
    check_endpoint(request.runtime, caller, MODELS)
    model = request.runtime.routes.model(name)
    if model is None or not caller.may_call(model.name):
        raise unknown_model(name, catalogue_page(request.runtime, request.origin))
    return own(request, _shown(model, request.runtime.config.portal.currency))


def _shown(model: Model, currency: str) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "type": "model",
        "created": model.created,
        "created_at": f"{clock.from_ms(model.created * 1000):%Y-%m-%dT%H:%M:%SZ}",
        "owned_by": "portico",
        "display_name": model.display_name or model.name,
        "capabilities": list(model.capabilities),
        "features": list(model.features),
        "context_window": model.context_window,
        "max_input_tokens": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "max_tokens": model.max_output_tokens,
        "status": model.status,
        "pricing": _pricing(model, currency),
    }


def _pricing(model: Model, currency: str) -> dict[str, Any] | None:
    """The price that holds now, decimals by the names of a price's members."""
    price = model.price_at(clock.now_ms())
    if price is None:
        return None
    told: dict[str, Any] = {"currency": currency, **_texts(price.rates)}
    if price.tiers:
        told["tiers"] = {name: _texts(rates) for name, rates in price.tiers.items()}
    if price.long_context is not None:
        long = price.long_context
        told["long_context"] = {"above_prompt_tokens": long.above_prompt_tokens, **_texts(long.rates)}
    return told


def _texts(rates: Mapping[str, int]) -> dict[str, str]:
    return {name: money.text(rate) for name, rate in rates.items()}
