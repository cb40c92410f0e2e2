"""From a call to an answer, and from a refusal to OpenAI's envelope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from app.blueprints.v1.visit import EVENTS, JSON, Answer, Visit
from app.gateway import pipeline
from app.gateway.call import Call, Interrupted
from app.gateway.errors import ApiError
from app.gateway.metrics import count_refusal
from app.gateway.streaming import Watch

# A client that takes nothing for this long is gone: gunicorn itself would wait for ever.
SLOW_READER_S = 60.0


def told(visit: Visit, value: Any) -> Answer:
    """A JSON answer of the gateway's own."""
    return Answer(200, {"Content-Type": JSON, "x-request-id": visit.id}, msgspec.json.encode(value))


def refusal(visit: Visit, error: ApiError) -> Answer:
    """OpenAI's error envelope."""
    if not visit.counted:
        count_refusal(visit.route, error.status)
    headers = {"Content-Type": JSON, **error.headers, "x-request-id": visit.id}
    if not visit.is_read:
        # What was not read of the body would be taken for the next request.
        headers["Connection"] = "close"
    return Answer(error.status, headers, error.envelope())


def served(visit: Visit, call: Call) -> Answer:
    """Run the call and answer with what comes."""
    watch = Watch(visit.socket, lambda: call.interrupt("gone"))
    try:
        answer = pipeline.run(visit.runtime, call)
    except Interrupted as interrupted:
        watch.stop()
        if interrupted.reason == "gone":
            return Answer(499, {"Connection": "close"}, b"")
        raise ApiError(
            503, "service_unavailable_error", call.error_code, call.error_message or "", headers={"Retry-After": "1"}
        ) from None
    except BaseException:
        watch.stop()
        visit.counted = call.settled
        raise
    headers = {"x-request-id": call.id, **answer.headers}
    if isinstance(answer.body, bytes):
        watch.stop()
        return Answer(200, {"Content-Type": JSON, **headers}, answer.body)
    if visit.socket is not None:
        visit.socket.settimeout(SLOW_READER_S)
    headers |= {"Content-Type": EVENTS, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Answer(200, headers, _Watched(answer.body, watch))


class _Watched:
    """The stream's pieces; when the server closes them the watch ends and the call is settled."""

    def __init__(self, pieces: Iterator[bytes], watch: Watch) -> None:
        self._pieces = pieces
        self._watch = watch

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        self._watch.stop()
        self._pieces.close()  # type: ignore[attr-defined]
