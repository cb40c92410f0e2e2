"""The door of applications: OpenAI's wire format, served from Redis and upstreams alone.

This application has no session, no cookie, no template and no app-wide hook.
"""

from __future__ import annotations

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from app.blueprints.v1 import chat, embeddings, key, models
from app.blueprints.v1.guard import guarded, open_gateway
from app.blueprints.v1.reply import refusal
from app.gateway.errors import ApiError, unknown_path, wrong_method

ENDPOINTS = (chat, embeddings, models, key)


def open_door(app: Flask) -> None:
    """Serve /v1 from `app`."""
    open_gateway(app)
    door = Blueprint("v1", __name__, url_prefix="/v1")
    for endpoint in ENDPOINTS:
        endpoint.open_on(door)
    app.register_blueprint(door)
    app.register_error_handler(ApiError, refusal)
    app.register_error_handler(HTTPException, _misdirected)


def _misdirected(error: HTTPException) -> Response | HTTPException:
    """A path or method that is not there, told only to those who have a key."""
    if request.path != "/v1" and not request.path.startswith("/v1/"):
        return error
    try:
        return guarded(_unknown, error)()
    except ApiError as refused:
        return refusal(refused)


def _unknown(error: HTTPException) -> Response:
    if isinstance(error, MethodNotAllowed):
        answer = refusal(wrong_method(request.method, request.path))
        answer.headers["Allow"] = ", ".join(error.valid_methods or ())
        return answer
    return refusal(unknown_path(request.method, request.path))
