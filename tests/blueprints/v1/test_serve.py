"""A client that hangs up is noticed within a second, and its upstream let go, whatever it has sent after its request."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.services.upstream import CHAT, Hang, chat

pytestmark = pytest.mark.both_lanes

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
        assert b"message_start" in client.recv(65_536)
    hung_up = time.monotonic()
    upstream.wait_for(lambda: upstream.last.client_gone_at is not None)
    assert upstream.last.client_gone_at - hung_up < AT_MOST_S
    (event,) = gate.events(1)
    assert event.outcome == "cancelled" and event.completion_tokens > 0
    assert gate.counted("key", f"key-{key[-6:]}") == (event.cost_nano, 0)
