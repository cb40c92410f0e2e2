"""The hot side's one connection: Redis is away when it is silent, and not when we were too busy to listen."""

from __future__ import annotations

import time

import gevent
import pytest
import redis

from app.gateway.redis_wire import RedisAway, RedisWire
from tests.services.valkey import ValkeyServer
from tests.services.waiting import until


def test_an_answer_that_a_busy_process_has_not_read_yet_is_no_silence(
    redis_url: str, valkey_server: ValkeyServer
) -> None:
    wire = RedisWire(redis_url, timeout_s=60)
    assert wire.call("PING") == b"PONG"
    link = wire._link
    assert link is not None
    long_ago = time.monotonic() - 100
    assert link._is_silent(long_ago)
    with valkey_server.silent():
        waiting = [gevent.spawn(wire.call, "ECHO", str(number)) for number in range(50)]
        gevent.sleep(0.05)  # they are sent
        assert link._is_silent(long_ago)
    until(lambda: not link._is_silent(long_ago))  # natively: nothing else of this process runs, while the answers come
    gevent.joinall(waiting, timeout=60)
    assert [one.value for one in waiting] == [str(number).encode() for number in range(50)]
    wire.close()


def test_a_silent_server_is_away(redis_url: str, valkey_server: ValkeyServer) -> None:
    wire = RedisWire(redis_url, timeout_s=0.2)
    assert wire.call("PING") == b"PONG"
    with valkey_server.silent(), pytest.raises(RedisAway):
        wire.call("PING")
    wire.close()


def test_a_server_that_became_a_replica_is_left(redis_url: str, valkey_server: ValkeyServer) -> None:
    """The next call asks anew where the primary is."""
    wire = RedisWire(redis_url)
    assert wire.call("PING") == b"PONG"
    other = redis.Redis.from_url(redis_url)
    other.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        link = wire._link
        with pytest.raises(RedisAway, match="READONLY"):
            wire.call("SET", "a", "b")
        assert link is not None and link.broken
    finally:
        other.execute_command("REPLICAOF", "NO", "ONE")
    assert wire.call("SET", "a", "b") == b"OK"
    wire.close()
