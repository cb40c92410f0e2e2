"""`GET /v1/models` and `/v1/models/{id}`: exactly what this key may call."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, Response, request

from app.blueprints.v1.guard import gateway, guarded, request_id
from app.directory import CallerRecord, Model
from app.gateway.errors import unknown_model


def open_on(door: Blueprint) -> None:
    door.get("/models")(guarded(list_models))
    door.get("/models/<path:name>")(guarded(show_model))


def list_models(caller: CallerRecord) -> Response:
    routes = gateway().routes
    models = [model for name in sorted(caller.models) if (model := routes.model(name)) is not None]
    provider = request.args.get("provider")
    if provider:
        models = [model for model in models if provider in routes.provider_names(model)]
    return _answer({"object": "list", "data": [_shown(model) for model in models]})


def show_model(caller: CallerRecord, name: str) -> Response:
    model = gateway().routes.model(name) if name in caller.models else None
    if model is None:
        raise unknown_model(name)
    return _answer(_shown(model))


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


def _answer(value: Any) -> Response:
    return Response(msgspec.json.encode(value), mimetype="application/json", headers={"x-request-id": request_id()})
