"""The hot side's one connection: Redis is away when it is silent, and not when we were too busy to listen."""

from __future__ import annotations

import time

import gevent
import pytest

from app.gateway.redis_wire import RedisAway, RedisWire


def test_an_answer_that_a_busy_process_has_not_read_yet_is_no_silence(redis_url: str) -> None:
    wire, other = RedisWire(redis_url, timeout_s=2), RedisWire(redis_url)
    assert wire.call("PING") == b"PONG"
    link = wire._link
    assert link is not None
    long_ago = time.monotonic() - 10
    assert link._is_silent(long_ago)
    other.call("CLIENT", "PAUSE", "200", "ALL")
    waiting = [gevent.spawn(wire.call, "ECHO", str(number)) for number in range(50)]
    gevent.sleep(0.05)  # they are sent
    assert link._is_silent(long_ago)
    time.sleep(0.6)  # a native sleep: nothing of this process runs, while the answers come
    assert not link._is_silent(long_ago)
    gevent.joinall(waiting, timeout=5)
    assert [one.value for one in waiting] == [str(number).encode() for number in range(50)]
    wire.close()
    other.close()


def test_a_silent_server_is_away(redis_url: str) -> None:
    wire, other = RedisWire(redis_url, timeout_s=0.2), RedisWire(redis_url)
    assert wire.call("PING") == b"PONG"
    other.call("CLIENT", "PAUSE", "1500", "ALL")
    began = time.monotonic()
    with pytest.raises(RedisAway):
        wire.call("PING")
    assert time.monotonic() - began < 1.4
    wire.close()
    other.close()
