"""`POST /v1/messages/count_tokens`: how long a prompt is. It is free and holds nothing."""

from __future__ import annotations

import msgspec

from app.blueprints.v1.handle import read_body
from app.blueprints.v1.http import JSON, Answer, Request
from app.directory import CallerRecord
from app.gateway import counting
from app.gateway.admission import admit, check_endpoint
from app.gateway.endpoints import COUNT_TOKENS, MESSAGES


def count(request: Request, caller: CallerRecord) -> Answer:
    """Raises `ApiError`."""
    check_endpoint(request.runtime, caller, MESSAGES)
    body = read_body(request)
    call = admit(
        request.runtime, caller, COUNT_TOKENS, body, id=request.id, origin=request.origin, headers=request.headers
    )
    found = counting.prompt_tokens(request.runtime, call, MESSAGES.path)
    headers = {"Content-Type": JSON, **dict.fromkeys(call.dialect.id_headers, call.id)}
    return Answer(200, headers, msgspec.json.encode({"input_tokens": found}))
