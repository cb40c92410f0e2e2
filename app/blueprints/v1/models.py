"""`GET /v1/models` and `/v1/models/{id}`: exactly what this key may call."""

from __future__ import annotations

from typing import Any

from app.blueprints.v1.http import Answer, Request
from app.blueprints.v1.serve import own
from app.directory import CallerRecord, Model
from app.gateway.admission import check_endpoint
from app.gateway.endpoints import MODELS
from app.gateway.errors import unknown_model


def list_models(request: Request, caller: CallerRecord) -> Answer:
    check_endpoint(request.runtime, MODELS)
    routes = request.runtime.routes
    models = [model for name in caller.callable_models() if (model := routes.model(name)) is not None]
    provider = request.query.get("provider")
    if provider:
        models = [model for model in models if provider in routes.provider_names(model)]
    return own(request, {"object": "list", "data": [_shown(model) for model in models]})


def show_model(request: Request, caller: CallerRecord, name: str) -> Answer:
    check_endpoint(request.runtime, MODELS)
    model = request.runtime.routes.model(name) if caller.may_call(name) else None
    if model is None:
        raise unknown_model(name)
    return own(request, _shown(model))


def _shown(model: Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "portico",
        "capabilities": list(model.capabilities),
        "features": list(model.features),
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "status": model.status,
    }
