"""A gateway that is told to stop lets streams run on for a while, then ends them honestly and bills them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.blueprints.v1.conftest import Client, Reply
from tests.services.gate import Gate
from tests.services.upstream import CHAT, Upstream, chat

pytestmark = pytest.mark.slow


@pytest.fixture
def start_gate(valkey_server, upstream) -> Iterator[Callable[..., Gate]]:
    """`start_gate(drain_s="1")` lets streams run on for a second."""
    upstream.reset()
    started: list[Gate] = []

    def start(drain_s: str) -> Gate:
        gate = Gate(valkey_server.url, CONFIG_SERVER_DRAIN_S=drain_s)
        started.append(gate)
        gate.start()
        gate.begin()
        gate.provider("up", base_url=upstream.url)
        gate.model("small", "up")
        return gate

    yield start
    for gate in started:
        gate.close()


def stopped_in_the_middle(gate: Gate, upstream: Upstream, content: str) -> Reply:
    """What a client gets of a stream when the gateway is told to stop after its first words."""
    client = Client(gate, gate.key())
    with ThreadPoolExecutor(1) as another:
        streaming = another.submit(client.chat, content, stream=True)
        upstream.wait_for(lambda: upstream.requests and upstream.last.chunks_sent >= 3)
        gate.process.send_signal(signal.SIGTERM)
        return streaming.result(60)


def test_a_stream_that_outlives_the_stop_ends_with_an_error_event_and_is_billed(start_gate, upstream):
    gate = start_gate(drain_s="1")
    upstream.always(CHAT, lambda body: chat(body, delay_s=0.2))
    reply = stopped_in_the_middle(gate, upstream, "word " * 200)
    last = [line for line in reply.body.split(b"\n\n") if line][-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_cut"
    (event,) = gate.events(1)
    assert (event.outcome, event.error_code) == ("error", "stopping")
    assert event.completion_tokens >= 2
    assert gate.counted("organisation", "default") == (event.cost_nano, 0)
    assert gate.process.wait(60) == 0


def test_a_stream_that_ends_in_time_is_whole(start_gate, upstream):
    gate = start_gate(drain_s="60")
    upstream.always(CHAT, lambda body: chat(body, delay_s=0.1))
    reply = stopped_in_the_middle(gate, upstream, "one two three four five six seven")
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert gate.events(1)[0].outcome == "ok"
