"""`POST /v1/estimate`: what a request would hold and probably cost. Free, and no use of any limit."""

from __future__ import annotations

from app.blueprints.v1.handle import read_body
from app.blueprints.v1.http import Answer, Request
from app.blueprints.v1.serve import own
from app.directory import CallerRecord
from app.gateway.admission import admit, check_endpoint, check_scope
from app.gateway.endpoints import ASKED, CHAT
from app.gateway.envelope import open_envelope
from app.gateway.errors import bad_request, unavailable
from app.gateway.estimates import estimate_of
from app.gateway.redis_wire import RedisAway


def show_estimate(request: Request, caller: CallerRecord) -> Answer:
    """Of a chat by its own body, or of any request in JSON as `{endpoint, request}`."""
    check_scope(caller, CHAT)
    body = read_body(request)
    assert isinstance(body, bytes)
    endpoint = CHAT
    members, values = open_envelope(body) if b'"request"' in body else ({}, {})
    if "request" in members and "messages" not in members:
        path = values.get("endpoint", CHAT.path)
        found = ASKED.get(path) if isinstance(path, str) else None
        if found is None or found.body != "json":
            named = ", ".join(sorted(path for path, one in ASKED.items() if one.body == "json"))
            raise bad_request(f"'endpoint' must be one of {named}.", "endpoint")
        endpoint, body = found, bytes(members["request"])
    check_endpoint(request.runtime, caller, endpoint)
    call = admit(request.runtime, caller, endpoint, body, id=request.id)
    try:
        return own(request, estimate_of(request.runtime, call))
    except RedisAway:
        raise unavailable("The meter") from None
