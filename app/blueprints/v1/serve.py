"""What is answered: a call's answer or stream, JSON of the gateway's own, and refusals."""

from __future__ import annotations

from typing import Any

import msgspec

from app.blueprints.v1.handle import read_body
from app.blueprints.v1.http import JSON, STREAM, Answer, Request
from app.directory import CallerRecord
from app.gateway import pipeline
from app.gateway.admission import admit, check_endpoint
from app.gateway.call import Call, Interrupted
from app.gateway.errors import ApiError
from app.gateway.streaming import SLOW_READER_S, Watch, Watched
from app.runtime.forms import Form


def serve(request: Request, caller: CallerRecord) -> Answer:
    """Answer a request to an endpoint that a model answers. Raises `ApiError`."""
    endpoint, runtime = request.endpoint, request.runtime
    assert endpoint is not None
    check_endpoint(runtime, caller, endpoint)
    body = read_body(request)
    try:
        call = admit(
            runtime, caller, endpoint, body, id=request.id, origin=request.origin, session=request.session,
            labels=request.labels, headers=request.headers,
        )  # fmt: skip
        request.call = call
        answer = _run(request, call)
        if answer.status == 200:
            runtime.last_calls.answered(caller, request.agent, request.id)
        return answer
    finally:
        if isinstance(body, Form):  # once an answer has begun, its upstream has all of it
            body.close()


def own(request: Request, value: Any) -> Answer:
    """A JSON answer of the gateway's own."""
    return Answer(200, {"Content-Type": JSON, "x-request-id": request.id}, msgspec.json.encode(value))


def _run(request: Request, call: Call) -> Answer:
    if call.request.stream:
        request.streams = call.request.model
    watch = Watch(request.socket, lambda: call.interrupt("gone"))
    try:
        answer = pipeline.run(request.runtime, call)
    except Interrupted as interrupted:
        watch.stop()
        if interrupted.reason == "gone":
            return Answer(499, {"Connection": "close"}, b"")
        raise ApiError(
            503, "service_unavailable_error", call.error_code, call.error_message or "", headers={"Retry-After": "1"}
        ) from None
    except BaseException:
        watch.stop()
        raise
    headers = {**dict.fromkeys(call.dialect.id_headers, call.id), **answer.headers}
    if isinstance(answer.body, bytes):
        watch.stop()
        return Answer(200, {"Content-Type": answer.media_type or JSON, **headers}, answer.body)
    if request.socket is not None:
        request.socket.settimeout(SLOW_READER_S)
    headers |= STREAM if answer.media_type is None else STREAM | {"Content-Type": answer.media_type}
    return Answer(200, headers, Watched(answer.body, watch))
