"""At the door of /v1: who calls, and what they bring, read with a bound and a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

import structlog

from app.blueprints.v1.http import JSON, STREAM, Answer, Request
from app.directory import CallerRecord
from app.gateway.errors import FINAL, ApiError, bad_request, internal, too_large, unavailable
from app.gateway.metrics import count_refusal
from app.gateway.redis_wire import RedisAway
from app.gateway.unpacking import TooLong, encoding_of, unpack
from app.runtime.bodies import BodyFault, pieces_of, read_whole
from app.runtime.forms import BadForm, Form, read_form

View = Callable[..., Answer]
_PIECE = 1 << 16

log = structlog.get_logger("gateway.door")


def handle(request: Request, view: View, **values: Any) -> Answer:
    """The answer to a request: `view` behind the key, with the caller's record; every refusal in the client's dialect."""
    caller = None
    try:
        caller = _caller(request)
        return view(request, caller, **values)
    except ApiError as error:
        answer = refusal(request, error)
        _note_refusal(request, caller, error)  # with the page that the client was told
        return answer
    except Exception:
        log.exception("a request failed", request_id=request.id, route=request.route)
        fault = internal()
        answer = refusal(request, fault)
        _note_refusal(request, caller, fault)
        return answer


def refusal(request: Request, error: ApiError) -> Answer:
    """A refusal in the client's dialect, with its status."""
    if request.call is None or not request.call.settled:
        count_refusal(request.route, error.status)
    headers = {"Content-Type": JSON, **error.headers, **dict.fromkeys(request.dialect.id_headers, request.id)}
    if error.status in (401, 403):
        headers |= FINAL
    if error.page is not None:
        error.message += f" See {request.runtime.config.origin_asked(request.origin)}{error.page}"
    told = request.dialect.refusal_stream(error, request.streams, request.agent) if request.streams else None
    if told is not None:
        return Answer(200, headers | STREAM, told)
    if not request.is_read:
        # What was not read of the body would be taken for the next request.
        headers["Connection"] = "close"
    return Answer(error.status, headers, request.dialect.error(error, request.id))


def _note_refusal(request: Request, caller: CallerRecord | None, error: ApiError) -> None:
    """Have a refused key or a denied model written down, and told to whom the key belongs why its call was refused."""
    runtime, denials = request.runtime, request.runtime.denials
    is_settled = request.call is not None and request.call.settled  # then the ledger has it already
    if caller is not None:
        runtime.last_calls.refused(caller, request.agent, request.id, error)
        if error.refusal is not None and error.refusal.reason == "model":
            denials.model(caller, error.refusal.asked)
    elif error.code == "invalid_api_key":
        denials.key(request.bearer)
    elif error.status == 401:
        denials.no_key()
    if (whose := caller or error.caller) is not None:
        if not is_settled:
            runtime.refused_calls.note(whose, request.id, request.route, error, request.call)
    elif error.status == 401:
        runtime.refused_calls.nobody(request.route, error)


def _caller(request: Request) -> CallerRecord:
    runtime = request.runtime
    caller = runtime.access.caller(request.bearer)
    with suppress(RedisAway):  # what is known of the directory still holds
        runtime.routes.refresh(runtime.access.directory_version)
    if runtime.routes.version is None:
        raise unavailable("The directory of models")
    return caller


def read_body(request: Request) -> bytes | Form:
    """The whole body, unpacked. Raises `ApiError`: 413 when too large, packed or not, 400 when cut short, not sent in
    time, not to be unpacked or no form where one is taken, 415 for a content encoding that is not taken."""
    server = request.runtime.config.server
    limit, declared = server.max_body_mb << 20, request.length
    takes_form = request.endpoint is not None and request.endpoint.body == "form"
    encoding = encoding_of(request.content_encoding) if request.content_encoding else None
    try:
        if takes_form and encoding is None:
            source = BytesIO(request.body) if isinstance(request.body, bytes) else request.body
            return _form(request, pieces_of(source, declared, limit, server.body_timeout_s))
        if isinstance(request.body, bytes):
            body = request.body
            if len(body) > limit:
                raise BodyFault(413)
        else:
            body = read_whole(request.body, declared, limit, server.body_timeout_s)
        request.is_read = True
        if encoding is not None:
            body = unpack(encoding, body, limit)
        return _form(request, (body[at : at + _PIECE] for at in range(0, len(body), _PIECE))) if takes_form else body
    except TooLong:
        raise too_large(server.max_body_mb) from None
    except BodyFault as fault:
        if fault.status == 413:
            raise too_large(server.max_body_mb) from None
        late = fault.status == 408
        raise bad_request(f"The request body {'did not arrive in time' if late else 'was cut short'}.") from None


def _form(request: Request, pieces: Iterator[bytes]) -> Form:
    try:
        form = read_form(request.content_type, pieces)  # all of them, so that nothing is taken for the next request
    except BadForm as error:
        raise bad_request(str(error)) from None
    request.is_read = True
    return form
