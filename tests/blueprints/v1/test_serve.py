"""What is answered: a body or a stream with its headers, and nothing to a client that hung up, which is noticed within a
second whatever it has sent after its request."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.blueprints.v1.http import Request
from app.gateway.call import Interrupted
from app.gateway.endpoints import CHAT as CHATS
from app.gateway.errors import ApiError
from app.gateway.pipeline import Served
from app.gateway.runtime import Runtime
from app.runtime.forms import Form
from tests.gateway.dialects.calls import CALLER, asked
from tests.gateway.dialects.calls import chat as body_of
from tests.services.upstream import CHAT, Hang, chat

pytestmark = pytest.mark.both_lanes

serving: Any = import_module("app.blueprints.v1.serve")  # the package has the function by that name

AT_MOST_S = 1.0 + 0.5  # what is promised, and what a busy machine takes


def request(gate, key: str, path: str = CHAT, **fields: object) -> bytes:
    body = json.dumps({"model": "small", "messages": [{"role": "user", "content": "one two"}], **fields}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    "extra", [b"", b"\n", b"POST /v1/chat/completions HTTP/1.1\r\n"], ids=["nothing", "a byte", "a line"]
)
@pytest.mark.parametrize("streams", [False, True])
def test_an_upstream_is_let_go_when_its_client_hangs_up(gate, key, upstream, extra, streams) -> None:
    upstream.script(CHAT, (lambda body: chat(body, hang_after=2)) if streams else Hang())
    with socket.create_connection(("127.0.0.1", gate.port)) as client:
        client.sendall(request(gate, key, stream=streams))
        upstream.wait_for(lambda: upstream.requests and (not streams or upstream.last.chunks_sent >= 2))
        client.sendall(extra)
        time.sleep(0.1)  # so that it is there before the end
    hung_up = time.monotonic()
    upstream.wait_for(lambda: upstream.last.client_gone_at is not None)
    assert upstream.last.client_gone_at - hung_up < AT_MOST_S
    (event,) = gate.events(1)
    assert event.outcome == "cancelled"


def test_a_stream_that_is_kept_alive_is_let_go_too(gate, key, upstream) -> None:
    """Its pieces are read by another greenlet than the one that writes them."""
    upstream.script(CHAT, lambda body: chat(body, hang_after=2))
    with socket.create_connection(("127.0.0.1", gate.port)) as client:
        client.sendall(request(gate, key, "/v1/messages", stream=True, max_tokens=9))
        came = b""
        while b"message_start" not in came:
            came += client.recv(65_536)
    hung_up = time.monotonic()
    upstream.wait_for(lambda: upstream.last.client_gone_at is not None)
    assert upstream.last.client_gone_at - hung_up < AT_MOST_S
    (event,) = gate.events(1)
    assert event.outcome == "cancelled" and event.completion_tokens > 0
    assert gate.counted("key", f"key-{key[-6:]}") == (event.cost_nano, 0)


# --- by itself ---


@pytest.fixture
def come(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`come(served)` is a request that the pipeline answers so, or with what it raises."""

    def request(served: Served | BaseException, *, settled: bool = False) -> Request:
        def run(runtime: Runtime, call: Any) -> Served:
            call.settled = settled
            if isinstance(served, BaseException):
                call.error_code, call.error_message = "stopping", "The gateway is restarting."
                raise served
            return served

        def admitted(*given: Any, id: str, **more: Any) -> Any:
            call = asked(body_of())
            call.id = id
            return call

        monkeypatch.setattr(serving.pipeline, "run", run)
        monkeypatch.setattr(serving, "admit", admitted)
        runtime = SimpleNamespace(
            routes=SimpleNamespace(endpoint_active=lambda path: True),
            config=SimpleNamespace(server=SimpleNamespace(max_body_mb=1, body_timeout_s=1)),
            last_calls=SimpleNamespace(answered=lambda *told: None),
        )
        return Request(cast(Runtime, runtime), CHATS.path, endpoint=CHATS, length=2, body=b"{}", socket=None)

    return request


def test_a_whole_answer_bears_its_id_and_what_the_pipeline_tells(come: Any) -> None:
    request = come(Served({"x-portico-max-tokens": "5"}, None, b"{}"))
    told = {"Content-Type": "application/json", "x-request-id": request.id, "x-portico-max-tokens": "5"}
    assert serving.serve(request, CALLER) == (200, told, b"{}")
    assert serving.serve(come(Served({}, "audio/wav", b"RIFF")), CALLER).headers["Content-Type"] == "audio/wav"


def test_a_stream_is_kept_by_nobody_on_its_way_and_ended_when_the_server_closes_it(come: Any) -> None:
    ends: list[str] = []

    def pieces() -> Iterator[bytes]:
        try:
            yield b"one"
            yield b"two"
        finally:
            ends.append("settled")

    answer = serving.serve(come(Served({}, None, pieces())), CALLER)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    stream: Any = answer.body
    assert next(stream) == b"one" and ends == []
    stream.close()
    assert ends == ["settled"]


def test_a_client_that_has_gone_is_answered_nothing_and_its_connection_closed(come: Any) -> None:
    assert serving.serve(come(Interrupted("gone")), CALLER) == (499, {"Connection": "close"}, b"")


@pytest.mark.parametrize("reason", ["fenced", "stopping"])
def test_a_call_that_the_gateway_had_to_stop_is_worth_another_try(come: Any, reason: Any) -> None:
    with pytest.raises(ApiError) as stopped:
        serving.serve(come(Interrupted(reason)), CALLER)
    assert (stopped.value.status, stopped.value.code, stopped.value.headers) == (503, "stopping", {"Retry-After": "1"})


@pytest.mark.parametrize("settled", [False, True])
def test_a_call_that_was_settled_is_in_the_metrics_already(come: Any, settled: bool) -> None:
    request = come(ApiError(502, "upstream_error", None, "It is down."), settled=settled)
    with pytest.raises(ApiError):
        serving.serve(request, CALLER)
    assert request.call is not None and request.call.settled is settled  # by which it is counted once


def test_the_files_of_a_form_are_given_back_however_it_ends(come: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Form] = []
    form = Form()
    monkeypatch.setattr(form, "close", lambda: closed.append(form), raising=False)
    monkeypatch.setattr(serving, "read_body", lambda request: form)
    serving.serve(come(Served({}, None, b"{}")), CALLER)
    with pytest.raises(ApiError):
        serving.serve(come(ApiError(502, "upstream_error", None, "It is down.")), CALLER)
    assert closed == [form, form]
