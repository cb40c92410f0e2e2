"""A gateway that is told to stop lets streams run on for a while, then ends them honestly and bills them."""

from __future__ import annotations

import json
import signal

import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import CHAT, chat

pytestmark = pytest.mark.slow


@pytest.fixture
def stopping_gate(valkey_server, upstream):
    upstream.reset()
    gate = Gate(valkey_server.url, CONFIG_SERVER_DRAIN_S="1")
    try:
        gate.start()
        gate.begin()
        gate.provider("up", base_url=upstream.url, timeout_s=5)
        gate.model("small", "up")
        yield gate
    finally:
        gate.close()


def test_a_stream_that_outlives_the_stop_ends_with_an_error_event_and_is_billed(stopping_gate, upstream):
    gate = stopping_gate
    upstream.always(CHAT, lambda body: chat(body, delay_s=0.2))
    client = Client(gate, gate.key())
    assert client("/v1/models").status == 200
    import threading

    threading.Timer(0.6, gate.process.send_signal, [signal.SIGTERM]).start()
    reply = client.chat(content="word " * 60, stream=True)
    last = [line for line in reply.body.split(b"\n\n") if line][-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_cut"
    (event,) = gate.events(1)
    assert (event.outcome, event.error_code) == ("error", "stopping")
    assert event.completion_tokens > 3
    assert gate.counted("organisation", "default") == (event.cost_nano, 0)
    assert gate.process.wait(10) == 0


def test_a_stream_that_ends_in_time_is_whole(stopping_gate, upstream):
    gate = stopping_gate
    upstream.always(CHAT, lambda body: chat(body, delay_s=0.1))
    client = Client(gate, gate.key())
    import threading

    threading.Timer(0.3, gate.process.send_signal, [signal.SIGTERM]).start()
    reply = client.chat(content="one two three four five", stream=True)
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert gate.events(1)[0].outcome == "ok"
