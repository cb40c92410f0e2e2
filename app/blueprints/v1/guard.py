"""At the door of /v1: who calls, and what they bring, read with a bound and a deadline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from app.blueprints.v1.reply import refusal
from app.blueprints.v1.visit import Answer, Visit
from app.bodies import BodyFault, read_whole
from app.directory import CallerRecord
from app.gateway.errors import ApiError, bad_request, endpoint_disabled, internal, too_large, unavailable
from app.gateway.redis_wire import RedisAway

Endpoint = Callable[..., Answer]

log = structlog.get_logger("gateway.door")


def attend(visit: Visit, endpoint: Endpoint, **values: Any) -> Answer:
    """The answer to a visit: `endpoint` behind the key, with the caller's record; every refusal in OpenAI's shape."""
    try:
        return endpoint(visit, _caller(visit), **values)
    except ApiError as error:
        return refusal(visit, error)
    except Exception:
        log.exception("a request failed", request_id=visit.id, route=visit.route)
        return refusal(visit, internal())


def _caller(visit: Visit) -> CallerRecord:
    runtime = visit.runtime
    caller = runtime.access.caller(visit.bearer)
    with suppress(RedisAway):  # what is known of the directory still holds
        runtime.routes.refresh(runtime.access.directory_version)
    if runtime.routes.version is None:
        raise unavailable("The directory of models")
    return caller


def check_endpoint(visit: Visit) -> None:
    """Raises `ApiError` 503 when the path is switched off."""
    if not visit.runtime.routes.endpoint_active(visit.route):
        raise endpoint_disabled(visit.route)


def read_body(visit: Visit) -> bytes:
    """The whole body. Raises `ApiError`: 413 when too large, 400 when cut short or not sent in time."""
    server = visit.runtime.config.server
    limit, declared = server.max_body_mb << 20, visit.length
    if declared is not None and declared > limit:
        raise too_large(server.max_body_mb)
    if isinstance(visit.body, bytes):
        visit.is_read = True
        return visit.body
    try:
        body = read_whole(visit.body, declared, limit, server.body_timeout_s)
    except BodyFault as fault:
        if fault.status == 413:
            raise too_large(server.max_body_mb) from None
        late = fault.status == 408
        raise bad_request(f"The request body {'did not arrive in time' if late else 'was cut short'}.") from None
    visit.is_read = True
    return body
