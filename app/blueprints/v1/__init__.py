"""The door of applications: OpenAI's wire format, served from Redis and upstreams alone.

This application has no session, no cookie, no template and no app-wide hook. The busiest routes have a lane of their
own in front of Flask (`lane.py`), to the same endpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from app.blueprints.v1 import chat, embeddings, key, models
from app.blueprints.v1.guard import Endpoint, attend
from app.blueprints.v1.lane import Lane
from app.blueprints.v1.reply import refusal
from app.blueprints.v1.visit import Answer, Visit
from app.directory import CallerRecord
from app.gateway import metrics
from app.gateway.endpoints import CHAT, EMBEDDINGS, MODELS, meant_by
from app.gateway.errors import ApiError, bad_request, internal, unknown_path, wrong_method
from app.gateway.runtime import Runtime
from app.runtime import health
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


def register(app: Flask) -> None:
    """Serve /v1 from `app`, and keep the lane to the same gateway in its extensions."""
    config: Config = app.config["PORTICO"]

    @cache
    def gateway() -> Runtime:
        """The gateway of this process, made at the first call: after the fork, in the worker."""
        return Runtime(config)

    app.url_map.merge_slashes = False  # a path with too many slashes is another: it leads nowhere, by no redirect
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    door = Blueprint("v1", __name__)
    for path, endpoint in SERVED.items():
        door.post(path, endpoint=endpoint.__name__)(_view(gateway, endpoint))
    for path, endpoint in TOLD.items():
        door.get(path, endpoint=endpoint.__name__)(_view(gateway, endpoint))
    app.register_blueprint(door)

    def misdirected(error: HTTPException) -> Response:
        """A path or method that is not there: below /v1 told only to those who have a key, or who ask for the methods."""
        visit, is_v1 = _visit(gateway()), f"{_path()}/".startswith("/v1/")
        if not isinstance(error, NotFound | MethodNotAllowed):
            ours = bad_request("The request can't be understood.") if (error.code or 500) < 500 else internal()
            return _response(refusal(visit, ours))
        allowed = ", ".join(sorted({*(getattr(error, "valid_methods", None) or ()), "OPTIONS"}))
        if is_v1 and request.method == "OPTIONS":
            nothing = Response(status=204, headers={"Allow": allowed, "x-request-id": visit.id})
            del nothing.headers["Content-Type"]
            return nothing
        answer = _response(attend(visit, _nowhere) if is_v1 else refusal(visit, _misdirection()))
        if answer.status_code == 405:
            answer.headers["Allow"] = allowed
        return answer

    app.register_error_handler(HTTPException, misdirected)
    app.extensions["lane"] = Lane(gateway, SERVED)
    health.before_metrics(metrics.tell)


def _view(gateway: Callable[[], Runtime], endpoint: Endpoint) -> Callable[..., Response]:
    def view(**values: Any) -> Response:
        if _path().startswith("//"):
            raise NotFound
        return _response(attend(_visit(gateway()), endpoint, **values))

    return view


def _visit(runtime: Runtime) -> Visit:
    visit = Visit(
        runtime,
        request.url_rule.rule if request.url_rule else "unknown",
        authorization=request.headers.get("Authorization", ""),
        api_key=request.headers.get("X-API-Key", ""),
        content_encoding=request.headers.get("Content-Encoding", ""),
        length=request.content_length,
        body=request.environ["wsgi.input"],
        socket=request.environ.get("gunicorn.socket"),
        query=request.args,
        origin=request.host_url.rstrip("/"),
    )
    visit.is_read = request.method in ("GET", "HEAD", "OPTIONS")
    return visit


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers, direct_passthrough=not isinstance(answer.body, bytes))


def _nowhere(visit: Visit, caller: CallerRecord) -> Answer:
    raise _misdirection()


def _misdirection() -> ApiError:
    """Why the present request leads nowhere."""
    path = _path()
    if isinstance(request.routing_exception, MethodNotAllowed) and not path.startswith("//"):
        return wrong_method(request.method, path)
    meant = meant_by(path)
    served = meant != path and (meant in SERVED or meant in TOLD)
    return unknown_path(request.method, path, meant if served else None)


def _path() -> str:
    """The path as it was asked for; Werkzeug's own takes slashes away at its beginning."""
    path: str = request.environ["PATH_INFO"]
    return path.encode("latin-1").decode(errors="replace")
