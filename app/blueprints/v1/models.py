"""`GET /v1/models` and `/v1/models/{id}`: exactly what this key may call."""

from __future__ import annotations

from typing import Any

from app.blueprints.v1.guard import check_endpoint
from app.blueprints.v1.reply import told
from app.blueprints.v1.visit import Answer, Visit
from app.directory import CallerRecord, Model
from app.gateway.endpoints import MODELS
from app.gateway.errors import unknown_model


def list_models(visit: Visit, caller: CallerRecord) -> Answer:
    check_endpoint(visit, MODELS.path)
    routes = visit.runtime.routes
    models = [model for name in caller.callable_models() if (model := routes.model(name)) is not None]
    provider = visit.query.get("provider")
    if provider:
        models = [model for model in models if provider in routes.provider_names(model)]
    return told(visit, {"object": "list", "data": [_shown(model) for model in models]})


def show_model(visit: Visit, caller: CallerRecord, name: str) -> Answer:
    check_endpoint(visit, MODELS.path)
    model = visit.runtime.routes.model(name) if caller.may_call(name) else None
    if model is None:
        raise unknown_model(name)
    return told(visit, _shown(model))


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
