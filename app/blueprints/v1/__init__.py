"""The door of applications: OpenAI's wire format, served from Redis and upstreams alone.

This application has no session, no cookie, no template and no app-wide hook. The busiest routes have a path of
their own in front of Flask (`fast_path.py`), to the same endpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flask
from flask import Blueprint, Flask, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from app.blueprints.v1 import count_tokens, key, meters, models
from app.blueprints.v1.estimate import show_estimate
from app.blueprints.v1.fast_path import FastPath
from app.blueprints.v1.handle import View, handle, refusal
from app.blueprints.v1.http import Answer, Request, passed_headers
from app.blueprints.v1.serve import serve
from app.directory import CallerRecord
from app.gateway import metrics
from app.gateway.endpoints import ASKED, CHAT, COUNT_TOKENS, MESSAGES, METERS, MODELS, RESPONSES, Endpoint, meant_by
from app.gateway.errors import ApiError, bad_request, internal, unknown_path, wrong_method
from app.gateway.labels import labels_in, session_in
from app.gateway.runtime import Runtime, of_process
from app.runtime import health
from config import Config

# What the gateway answers by itself.
OWN: dict[str, View] = {
    MODELS.path: models.list_models,
    f"{MODELS.path}/<path:name>": models.show_model,
    "/v1/key": key.show_key,
    "/key/info": meters.litellm_info,
    "/api/v1/key": meters.openrouter_key,
}
ESTIMATE = "/v1/estimate"
EXPOSED = "x-request-id, request-id, retry-after, x-should-retry, x-portico-max-tokens, x-ratelimit-limit-requests, \
x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, \
x-ratelimit-reset-tokens"  # to pages of other origins


def register(app: Flask) -> None:
    """Serve /v1 from `app`, and keep the fast path to the same gateway in its extensions."""
    config: Config = app.config["PORTICO"]

    gateway = partial(of_process, config)
    app.url_map.merge_slashes = False  # a path with too many slashes is another: it leads nowhere, by no redirect
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    door = Blueprint("v1", __name__)
    for path, endpoint in ASKED.items():
        door.post(path, endpoint=endpoint.id)(_view(gateway, serve, endpoint))
    count = _view(gateway, count_tokens.count, COUNT_TOKENS)
    door.post(COUNT_TOKENS.path, endpoint=COUNT_TOKENS.id)(count)
    for path, view in OWN.items():
        door.get(path, endpoint=view.__name__)(_view(gateway, view))
    door.post(ESTIMATE, endpoint="estimate")(_view(gateway, show_estimate))
    app.register_blueprint(door)

    def misdirected(error: HTTPException) -> Response:
        """A path or method that is not there: below /v1 told only to those who have a key, or who ask for the methods."""
        if _path() == RESPONSES.path and flask.request.headers.get("Upgrade", "").lower() == "websocket":
            nothing = Response(status=426)  # by which clients know that they are to go on without
            del nothing.headers["Content-Type"]
            return nothing
        spoken = MESSAGES if f"{_path()}/".startswith(f"{MESSAGES.path}/") else None
        is_v1 = f"{_path()}/".startswith("/v1/") or _path() in METERS
        request = _request(gateway(), spoken)
        if not isinstance(error, NotFound | MethodNotAllowed):
            ours = bad_request("The request can't be understood.") if (error.code or 500) < 500 else internal()
            return _response(refusal(request, ours))
        allowed = ", ".join(sorted({*(getattr(error, "valid_methods", None) or ()), "OPTIONS"}))
        if is_v1 and flask.request.method == "OPTIONS":
            nothing = Response(status=204, headers={"Allow": allowed, "x-request-id": request.id})
            del nothing.headers["Content-Type"]
            return _shared(nothing, config)
        answer = _shared(_response(handle(request, _nowhere) if is_v1 else refusal(request, _misdirection())), config)
        if answer.status_code == 405:
            answer.headers["Allow"] = allowed
        return answer

    app.register_error_handler(HTTPException, misdirected)
    app.extensions["fast_path"] = FastPath(gateway, ASKED)
    health.before_metrics(metrics.tell)


def _view(gateway: Callable[[], Runtime], view: View, endpoint: Endpoint | None = None) -> Callable[..., Response]:
    def answered(**values: Any) -> Response:
        if _path().startswith("//"):
            raise NotFound
        runtime = gateway()
        return _shared(_response(handle(_request(runtime, endpoint), view, **values)), runtime.config)

    return answered


def _request(runtime: Runtime, endpoint: Endpoint | None = None) -> Request:
    came = flask.request
    user_agent = came.headers.get("User-Agent", "")
    request = Request(
        runtime,
        came.url_rule.rule if came.url_rule else "unknown",
        authorization=came.headers.get("Authorization", ""),
        api_key=came.headers.get("X-API-Key", ""),
        content_encoding=came.headers.get("Content-Encoding", ""),
        content_type=came.headers.get("Content-Type", ""),
        endpoint=endpoint,
        length=came.content_length,
        body=came.environ["wsgi.input"],
        socket=came.environ.get("gunicorn.socket"),
        query=came.args,
        origin=came.host_url.rstrip("/"),
        session=session_in(came.headers.get),
        user_agent=user_agent,
        labels=labels_in(came.headers.get, user_agent),
        headers={
            name: value
            for name in passed_headers(endpoint.dialect if endpoint else None).values()
            if (value := came.headers.get(name)) is not None
        },
    )
    request.is_read = came.method in ("GET", "HEAD", "OPTIONS")
    return request


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers, direct_passthrough=not isinstance(answer.body, bytes))


def _shared(response: Response, config: Config) -> Response:
    """The answer, readable for a page of an allowed origin. Credentials are in headers, so cookies play no part."""
    origin = flask.request.headers.get("Origin")
    if origin is None or origin not in config.server.cors_origins:
        return response
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = origin
    headers["Vary"] = "Origin"
    headers["Access-Control-Expose-Headers"] = EXPOSED
    if flask.request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = headers.get("Allow", "OPTIONS")
        headers["Access-Control-Allow-Headers"] = flask.request.headers.get("Access-Control-Request-Headers", "")[:1000]
        headers["Access-Control-Max-Age"] = "600"
    return response


def _nowhere(request: Request, caller: CallerRecord) -> Answer:
    raise _misdirection()


def _misdirection() -> ApiError:
    """Why the present request leads nowhere."""
    path = _path()
    if isinstance(flask.request.routing_exception, MethodNotAllowed) and not path.startswith("//"):
        return wrong_method(flask.request.method, path)
    if path.rstrip("/").startswith(f"{CHAT.path}/"):
        return unknown_path(flask.request.method, path, hint="Completions are not stored here.")
    meant = meant_by(path)
    served = meant != path and (meant in ASKED or meant in OWN)
    return unknown_path(flask.request.method, path, hint=f"Did you mean {meant}?" if served else "")


def _path() -> str:
    """The path as it was asked for; Werkzeug's own takes slashes away at its beginning."""
    path: str = flask.request.environ["PATH_INFO"]
    return path.encode("latin-1").decode(errors="replace")
