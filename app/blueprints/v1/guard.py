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
from app.gateway.unpacking import TooLong, encoding_of, unpack

Endpoint = Callable[..., Answer]

log = structlog.get_logger("gateway.door")


def attend(visit: Visit, endpoint: Endpoint, **values: Any) -> Answer:
    """The answer to a visit: `endpoint` behind the key, with the caller's record; every refusal in OpenAI's shape."""
    caller = None
    try:
        caller = _caller(visit)
        return endpoint(visit, caller, **values)
    except ApiError as error:
        _note_denial(visit, caller, error)
        return refusal(visit, error)
    except Exception:
        log.exception("a request failed", request_id=visit.id, route=visit.route)
        return refusal(visit, internal())


def _note_denial(visit: Visit, caller: CallerRecord | None, error: ApiError) -> None:
    """Have a refused key or a denied model written down."""
    denials = visit.runtime.denials
    if caller is not None:
        if error.denied_model is not None:
            denials.model(caller, error.denied_model)
    elif error.code == "invalid_api_key":
        denials.key(visit.bearer)
    elif error.status == 401:
        denials.no_key()


def _caller(visit: Visit) -> CallerRecord:
    runtime = visit.runtime
    caller = runtime.access.caller(visit.bearer)
    with suppress(RedisAway):  # what is known of the directory still holds
        runtime.routes.refresh(runtime.access.directory_version)
    if runtime.routes.version is None:
        raise unavailable("The directory of models")
    return caller


def check_endpoint(visit: Visit, path: str) -> None:
    """Raises `ApiError` 503 when a path of the table of endpoints is switched off."""
    if not visit.runtime.routes.endpoint_active(path):
        raise endpoint_disabled(path)


def read_body(visit: Visit) -> bytes:
    """The whole body, unpacked. Raises `ApiError`: 413 when too large, packed or not, 400 when cut short, not sent in
    time or not to be unpacked, 415 for a content encoding that is not taken."""
    encoding = encoding_of(visit.content_encoding) if visit.content_encoding else None
    packed = _sent_body(visit)
    if encoding is None:
        return packed
    limit_mb = visit.runtime.config.server.max_body_mb
    try:
        return unpack(encoding, packed, limit_mb << 20)
    except TooLong:
        raise too_large(limit_mb) from None


def _sent_body(visit: Visit) -> bytes:
    """The whole body as it was sent. Raises `ApiError` 413 or 400."""
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
