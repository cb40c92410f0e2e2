"""At the door of /v1: who calls, and what they bring, read with a bound and a deadline.

Werkzeug would cut a chunked body at the limit without a word and pass on one that ended early as if it were
whole; here the first is 413 and the second 400.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import gevent
from flask import Flask, Response, current_app, g, request

from app.gateway.errors import bad_request, endpoint_disabled, too_large, unavailable
from app.gateway.redis_wire import RedisAway
from app.gateway.runtime import Runtime
from app.ids import new_id
from config import Config

_PIECE = 1 << 18


def open_gateway(app: Flask) -> None:
    """Prepare the process's gateway, made at the first call: after the fork, in the worker."""
    app.extensions["gateway"] = None


def gateway() -> Runtime:
    """The gateway of this process."""
    runtime: Runtime | None = current_app.extensions["gateway"]
    if runtime is None:
        config: Config = current_app.config["PORTICO"]
        runtime = current_app.extensions["gateway"] = Runtime(config)
    return runtime


def request_id() -> str:
    """This request's id, the same in headers, ledger and logs."""
    if "request_id" not in g:
        g.request_id = new_id()
    id: str = g.request_id
    return id


def guarded(view: Callable[..., Response], *given: Any, limited: bool = True) -> Callable[..., Response]:
    """`view` behind the key: it finds the caller's record as its first argument."""

    @wraps(view)
    def behind_the_key(**values: Any) -> Response:
        runtime = gateway()
        caller = runtime.access.caller(_bearer())
        try:
            runtime.routes.refresh(runtime.access.directory_version)
        except RedisAway:
            if runtime.routes.version is None:
                raise unavailable("The directory of models") from None
        return view(*given, **values) if given else view(caller, **values)

    return behind_the_key


def _bearer() -> str | None:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None


def check_endpoint(path: str) -> None:
    """Raises `ApiError` 503 when the path is switched off."""
    if not gateway().routes.endpoint_active(path):
        raise endpoint_disabled(path)


def read_body() -> bytes:
    """The whole body. Raises `ApiError`: 413 when too large, 400 when cut short or not sent in time."""
    server = gateway().config.server
    limit = server.max_body_mb << 20
    declared = request.content_length
    if declared is not None and declared > limit:
        raise too_large(server.max_body_mb)
    stream = request.environ["wsgi.input"]
    pieces: list[bytes] = []
    size = 0
    late = gevent.Timeout(server.body_timeout_s)
    late.start()
    try:
        while size <= limit and (declared is None or size < declared):
            piece = stream.read(_PIECE if declared is None else min(_PIECE, declared - size))
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    except gevent.Timeout as timeout:
        if timeout is not late:
            raise
        raise bad_request("The request body did not arrive in time.") from None
    except Exception:  # the server's parser has exceptions of its own for bodies that end early
        raise bad_request("The request body was cut short.") from None
    finally:
        late.close()
    if size > limit:
        raise too_large(server.max_body_mb)
    if declared is not None and size < declared:
        raise bad_request("The request body was cut short.")
    g.body_read = True
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
