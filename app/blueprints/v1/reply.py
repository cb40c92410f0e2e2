"""From a served call to an HTTP answer, and from a refusal to OpenAI's envelope."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response, g, request

from app.blueprints.v1.guard import gateway, request_id
from app.gateway import pipeline
from app.gateway.call import Call, Interrupted
from app.gateway.errors import ApiError
from app.gateway.metrics import count_refusal
from app.gateway.streaming import Watch

# A client that takes nothing for this long is gone: gunicorn itself would wait for ever.
SLOW_READER_S = 60.0
JSON = "application/json"


def refusal(error: ApiError) -> Response:
    """OpenAI's error envelope."""
    if not g.get("counted", False):
        count_refusal(request.url_rule.rule if request.url_rule else "unknown", error.status)
    answer = Response(error.envelope(), error.status, mimetype=JSON)
    answer.headers.update(error.headers)
    answer.headers["x-request-id"] = request_id()
    if "body_read" not in g and request.method != "GET":
        # What was not read of the body would be taken for the next request.
        answer.headers["Connection"] = "close"
    return answer


def served(call: Call) -> Response:
    """Run the call and answer with what comes."""
    client = request.environ.get("gunicorn.socket")
    watch = Watch(client, lambda: call.interrupt("gone"))
    try:
        answer = pipeline.run(gateway(), call)
    except Interrupted as interrupted:
        watch.stop()
        if interrupted.reason == "gone":
            return Response(status=499)
        raise ApiError(
            503, "service_unavailable_error", call.error_code, call.error_message or "", headers={"Retry-After": "1"}
        ) from None
    except BaseException:
        watch.stop()
        g.counted = call.settled
        raise
    headers = {"x-request-id": call.id, **answer.headers}
    if isinstance(answer.body, bytes):
        watch.stop()
        return Response(answer.body, 200, headers, mimetype=JSON)
    if client is not None:
        client.settimeout(SLOW_READER_S)
    headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(_watched(answer.body, watch), 200, headers, mimetype="text/event-stream", direct_passthrough=True)


class _watched:
    """The stream's pieces; when the server closes them the watch ends and the call is settled."""

    def __init__(self, pieces: Iterator[bytes], watch: Watch) -> None:
        self._pieces = pieces
        self._watch = watch

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._watch.stop()
        self._pieces.close()  # type: ignore[attr-defined]
