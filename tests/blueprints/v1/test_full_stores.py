"""Stores that answer and take nothing, a full disk or a Redis without memory: trouble inside is 503, and money stays right."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
import redis

from app import clock, store
from app.directory import Price
from app.runtime import heartbeats
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.valkey import ValkeyServer, running_valkey
from tests.services.waiting import until

FREE = Price(id="free", rates={"input_per_mtok": 0, "output_per_mtok": 0})
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture(scope="module")
def own_valkey() -> Iterator[ValkeyServer]:
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def own_gate(own_valkey) -> Iterator[Gate]:
    gate = Gate(own_valkey.url)
    try:
        yield gate.start()
    finally:
        gate.close()


@pytest.fixture
def gate(own_gate) -> Gate:
    own_gate.begin()
    own_gate.provider("echo", kind="echo")
    own_gate.model("paid", "echo")
    own_gate.model("free", "echo", price=FREE)
    return own_gate


@contextmanager
def no_memory(server: redis.Redis) -> Iterator[None]:
    server.config_set("maxmemory", 1)
    try:
        yield
    finally:
        server.config_set("maxmemory", 0)


@contextmanager
def no_replicas(server: redis.Redis) -> Iterator[None]:
    server.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        server.config_set("min-replicas-to-write", 0)


@contextmanager
def replica(server: redis.Redis) -> Iterator[None]:
    server.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        server.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize("trouble", [no_memory, no_replicas, replica])
def test_a_redis_that_takes_no_writes_is_503_and_not_ready(gate, trouble) -> None:
    client, stranger = Client(gate, gate.key()), Client(gate, gate.key())
    for process in heartbeats.PROCESSES:  # none of which runs here
        heartbeats.beat(gate.redis, process)
    assert client("/readyz").json == {"status": "ready", "degraded": []}
    assert client.chat(model="paid").status == 200
    with trouble(gate.redis):
        for one in (client, stranger):
            reply = one.chat(model="paid")
            assert (reply.status, reply.headers["Retry-After"]) == (503, "1"), reply.body
        assert client.chat(model="free").status == 200
        assert client("/v1/models").status == 200
        ready = client("/readyz")
        assert (ready.status, ready.json["degraded"]) == (503, ["redis"])
    assert client("/readyz").status == 200
    assert client.chat(model="paid").status == 200
    until(lambda: len(gate.events()) >= 3)


@pytest.mark.parametrize("trouble", [no_memory, no_replicas, replica])
def test_a_redis_that_takes_no_writes_is_no_spent_budget(gate, trouble) -> None:
    client = Client(gate, gate.key(id="key-a"))
    gate.limit("key", "key-a", "1")
    assert client.chat(model="paid").status == 200
    gate.redis.hset(store.METER, "clock", clock.now_ms() + 3_000)  # so that the hold is the first that would be written
    with trouble(gate.redis):
        assert client.chat(model="paid").status == 503
    assert client.chat(model="paid").status == 200


@contextmanager
def full_disk(gate: Gate) -> Iterator[None]:
    """No file of the gateway's workers can grow beyond what its spool has now."""
    assert gate.process is not None
    workers = [child.pid for child in psutil.Process(gate.process.pid).children()]
    (spool,) = gate.config.spool_dir.glob("*.jsonl")
    size = spool.stat().st_size
    for pid in workers:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in workers:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, NO_LIMIT)


def test_a_full_disk_loses_no_answer_and_no_charge_and_lets_nobody_in(gate) -> None:
    client = Client(gate, gate.key(id="key-a"))
    assert client.chat(model="paid").status == 200
    once = gate.counted("key", "key-a")[0]
    with full_disk(gate):
        assert client.chat(model="paid").status == 200  # nobody knows yet; what was produced is charged
        assert gate.counted("key", "key-a") == (2 * once, 0)
        for model in ("paid", "free"):
            reply = client.chat(model=model)
            assert (reply.status, reply.headers["Retry-After"]) == (503, "1"), reply.body
        assert gate.counted("key", "key-a") == (2 * once, 0)
    until(lambda: client.chat(model="paid").status == 200)
    (spool,) = gate.config.spool_dir.glob("*.jsonl")
    until(lambda: len(spool.read_text().splitlines()) >= 3)
    ids = [line.partition('"request_id":"')[2][:36] for line in spool.read_text().splitlines()]
    assert len(ids) == len(set(ids))  # each once, none torn
    assert all(event.request_id in ids for event in gate.events(3))


@pytest.mark.slow
def test_a_gateway_that_begins_on_a_full_disk_lets_nobody_in_until_there_is_room(own_valkey) -> None:
    gate = Gate(own_valkey.url)
    try:
        gate.config.spool_dir.parent.mkdir(parents=True, exist_ok=True)
        gate.config.spool_dir.touch()  # no folder can be made there
        gate.start()
        gate.begin()
        gate.provider("echo", kind="echo")
        gate.model("paid", "echo")
        client = Client(gate, gate.key())
        assert client.chat(model="paid").status == 503
        assert client("/v1/models").status == 200
        gate.config.spool_dir.unlink()
        until(lambda: client.chat(model="paid").status == 200)
    finally:
        gate.close()
