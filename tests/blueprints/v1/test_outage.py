"""Redis away: money fails closed, rates fail open, free models go on, and nothing is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import store
from app.directory import Price
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import CHAT, chat
from tests.services.valkey import ValkeyServer, running_valkey
from tests.services.waiting import until

pytestmark = pytest.mark.slow
FREE = Price(id="free", rates={"input_per_mtok": 0, "output_per_mtok": 0})


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def gate(own_valkey) -> Iterator[Gate]:
    gate = Gate(own_valkey.url, PORTICO_LEASE_MS="2000")
    try:
        gate.start()
        gate.begin()
        gate.provider("echo", kind="echo")
        gate.model("paid", "echo")
        gate.model("free", "echo", price=FREE)
        yield gate
    finally:
        gate.close()


def reopen(gate: Gate) -> None:
    """What the drainer does once everything is counted."""
    gate.redis.hset(store.METER, mapping={"epoch": "again", "run_id": gate.redis.info("server")["run_id"]})


def test_free_models_go_on_while_redis_is_away_and_paid_ones_wait(gate, own_valkey):
    client, stranger = Client(gate, gate.key(id="key-a")), Client(gate, gate.key())
    gate.limit("key", "key-a", rpm=5)
    assert client.chat(model="free").status == 200
    own_valkey.kill()
    paid = client.chat(model="paid")
    assert (paid.status, paid.headers["Retry-After"]) == (503, "1")
    assert stranger.chat(model="free").status == 503  # never 401
    statuses = [client.chat(model="free").status for _ in range(6)]
    assert statuses == [200] * 5 + [429]
    own_valkey.start()
    assert client.chat(model="paid").status == 503  # the meter is not counted yet
    reopen(gate)
    until(lambda: client.chat(model="paid").status == 200)
    assert len([event for event in gate.events(7) if event.model == "free"]) == 6


def test_a_call_that_ends_while_redis_is_away_is_settled_when_it_is_back(gate, own_valkey, upstream):
    upstream.reset()
    gate.provider("up", base_url=upstream.url)
    gate.model("slow", "up")
    upstream.always(CHAT, lambda body: chat(body, delay_s=0.2))
    client = Client(gate, gate.key(id="key-a"))
    assert client.chat(model="slow").status == 200
    before = gate.counted("key", "key-a")[0]
    with ThreadPoolExecutor(1) as another:
        streaming = another.submit(client.chat, model="slow", stream=True)
        upstream.wait_for(lambda: upstream.last.chunks_sent >= 2)
        own_valkey.kill()
        reply = streaming.result(60)
    assert reply.body.endswith(b"data: [DONE]\n\n")
    own_valkey.start()
    reopen(gate)
    until(lambda: gate.counted("key", "key-a") == (2 * before, 0), lambda: gate.counted("key", "key-a"))


def test_a_long_free_call_begun_while_redis_is_away_runs_on_when_it_is_back(gate, own_valkey, upstream):
    """Redis never heard of its hold: no beat may find that missing and stop the call."""
    upstream.reset()
    gate.provider("up", base_url=upstream.url)
    gate.model("long", "up", price=FREE)
    upstream.always(CHAT, lambda body: chat(body, delay_s=0.25))
    client = Client(gate, gate.key(id="key-a"))
    assert client.chat(model="free").status == 200  # so that the key is remembered
    own_valkey.kill()
    with ThreadPoolExecutor(1) as another:
        call = another.submit(client.chat, "word " * 14, model="long", stream=True)  # seven beats long
        upstream.wait_for(lambda: upstream.requests and upstream.last.chunks_sent >= 2)
        own_valkey.start()
        reopen(gate)
        reply = call.result(60)
    assert reply.body.endswith(b"data: [DONE]\n\n")
    (event,) = [event for event in gate.events(2) if event.model == "long"]
    assert event.outcome == "ok"
