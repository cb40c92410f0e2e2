"""What is told of attempts: sums by five minutes, and how they went last, whatever process told it."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from app import store
from app.gateway.redis_wire import RedisAway
from app.gateway.traffic import LIFE_S, SLOT_LIFE_S, SLOT_MS, Traffic

NOW_MS = 1_800_000_000_000


class Time:
    ms = NOW_MS


@pytest.fixture
def time(monkeypatch) -> Time:
    made = Time()
    monkeypatch.setattr("app.clock.now_ns", lambda: made.ms * 1_000_000)
    return made


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


def sums(server: redis.Redis) -> dict[str, str]:
    return server.hgetall(store.traffic(NOW_MS // SLOT_MS))


def test_attempts_failures_and_what_they_cost_are_summed(server, time) -> None:
    traffic = Traffic(server.execute_command)
    for _ in range(3):
        traffic.asked("d")
    traffic.failed("d", "broken", 7)
    traffic.tell()
    traffic.asked("d")
    traffic.failed("d", "broken", 5)
    traffic.tell()
    assert sums(server) == {"d:requests": "4", "d:errors": "2", "d:cost": "12"}
    assert 0 < server.ttl(store.traffic(NOW_MS // SLOT_MS)) <= SLOT_LIFE_S
    assert 0 < server.ttl(store.went("d")) <= LIFE_S


def test_since_tells_when_attempts_began_to_fail_and_when_they_went_well_again(server, time) -> None:
    traffic = Traffic(server.execute_command)

    def told() -> tuple[str, int]:
        traffic.tell()
        went = server.hgetall(store.went("d"))
        return went["row"], int(went["since"]) - NOW_MS

    traffic.succeeded("d")
    assert told() == ("0", 0)
    time.ms += 10
    traffic.succeeded("d")
    assert told() == ("0", 0)
    traffic.failed("d", "broken")
    time.ms += 10
    assert told() == ("1", 10)
    traffic.failed("d", "broken")
    assert told() == ("2", 10)
    time.ms += 10
    traffic.succeeded("d")
    assert told() == ("0", 30)


def test_what_redis_does_not_take_is_told_with_the_next(server, time) -> None:
    away = True

    def send(*command: Any) -> Any:
        if away:
            raise RedisAway
        return server.execute_command(*command)

    traffic = Traffic(send)
    traffic.asked("d")
    traffic.failed("d", "broken")
    with pytest.raises(RedisAway):
        traffic.tell()
    traffic.asked("d")
    traffic.failed("d", "broken again")
    away = False
    traffic.tell()
    assert sums(server) == {"d:requests": "2", "d:errors": "2"}
    assert server.hget(store.went("d"), "row") == "2"


@given(st.lists(st.sampled_from(("ok", "failed", "told", "lost")), max_size=30))
def test_failures_in_a_row_are_counted_however_they_are_told(valkey: str, happens: list[str]) -> None:
    server = redis.Redis.from_url(valkey, decode_responses=True)
    server.delete(store.went("d"))
    fails = False

    def send(*command: Any) -> Any:
        if fails:
            raise RedisAway
        return server.execute_command(*command)

    traffic, row = Traffic(send), 0
    for what in [*happens, "told"]:
        fails = what == "lost"
        if what == "ok":
            row = 0
            traffic.succeeded("d")
        elif what == "failed":
            row += 1
            traffic.failed("d", "broken")
        else:
            try:
                traffic.tell()
            except RedisAway:
                continue
    assert int(server.hget(store.went("d"), "row") or 0) == row
    server.close()
