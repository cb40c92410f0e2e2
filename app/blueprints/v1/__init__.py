"""The door of applications: OpenAI's wire format, served from Redis and upstreams alone.

This application has no session, no cookie, no template and no app-wide hook. The busiest routes have a lane of their
own in front of Flask (`lane.py`), to the same endpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from app import health
from app.blueprints.v1 import chat, embeddings, key, models
from app.blueprints.v1.guard import Endpoint, attend
from app.blueprints.v1.lane import Lane
from app.blueprints.v1.visit import Answer, Visit
from app.directory import CallerRecord
from app.gateway import metrics
from app.gateway.endpoints import CHAT, EMBEDDINGS, MODELS
from app.gateway.errors import unknown_path, wrong_method
from app.gateway.runtime import Runtime
from config import Config

# What upstreams serve, by path: in the lane too.
SERVED: dict[str, Endpoint] = {
    CHAT.path: chat.complete,
    EMBEDDINGS.path: embeddings.embed,
}
# What the gateway tells by itself.
TOLD: dict[str, Endpoint] = {
    MODELS.path: models.list_models,
    f"{MODELS.path}/<path:name>": models.show_model,
    "/v1/key": key.show_key,
}


def open_door(app: Flask) -> None:
    """Serve /v1 from `app`, and keep the lane to the same gateway in its extensions."""
    config: Config = app.config["PORTICO"]

    @cache
    def gateway() -> Runtime:
        """The gateway of this process, made at the first call: after the fork, in the worker."""
        return Runtime(config)

    door = Blueprint("v1", __name__)
    for path, endpoint in SERVED.items():
        door.post(path, endpoint=endpoint.__name__)(_view(gateway, endpoint))
    for path, endpoint in TOLD.items():
        door.get(path, endpoint=endpoint.__name__)(_view(gateway, endpoint))
    app.register_blueprint(door)

    def misdirected(error: HTTPException) -> Response | HTTPException:
        """A path or method that is not there, told only to those who have a key."""
        if request.path != "/v1" and not request.path.startswith("/v1/"):
            return error
        answer = _response(attend(_visit(gateway()), _nowhere))
        if isinstance(error, MethodNotAllowed):
            answer.headers["Allow"] = ", ".join(error.valid_methods or ())
        return answer

    app.register_error_handler(HTTPException, misdirected)
    app.extensions["lane"] = Lane(gateway, SERVED)
    health.before_metrics(metrics.tell)


def _view(gateway: Callable[[], Runtime], endpoint: Endpoint) -> Callable[..., Response]:
    def view(**values: Any) -> Response:
        return _response(attend(_visit(gateway()), endpoint, **values))

    return view


def _visit(runtime: Runtime) -> Visit:
    visit = Visit(
        runtime,
        request.url_rule.rule if request.url_rule else "unknown",
        authorization=request.headers.get("Authorization", ""),
        length=request.content_length,
        body=request.environ["wsgi.input"],
        socket=request.environ.get("gunicorn.socket"),
        query=request.args,
        origin=request.host_url.rstrip("/"),
    )
    visit.is_read = request.method == "GET"
    return visit


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers, direct_passthrough=not isinstance(answer.body, bytes))


def _nowhere(visit: Visit, caller: CallerRecord) -> Answer:
    if request.routing_exception is not None and isinstance(request.routing_exception, MethodNotAllowed):
        raise wrong_method(request.method, request.path)
    raise unknown_path(request.method, request.path)
