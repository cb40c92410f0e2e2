"""What is denied is counted within bounds, told once a second, and never keeps a credential."""

from __future__ import annotations

import msgspec
import pytest
import redis

from app import clock, store
from app.directory import CallerRecord
from app.gateway import denials
from app.gateway.denials import HOUR_MS, Denial, Denials, Told
from app.gateway.redis_wire import RedisAway, RedisWire

KEY = "sk-" + "a" * 42 + "WXYZ"
CALLER = CallerRecord(id="k", kind="key", name="app", person_id="p", username="ada")


def sums(server: redis.Redis) -> dict[Denial, str]:
    kept = server.hgetall(store.denials(clock.now_ms() // HOUR_MS))
    return {msgspec.json.decode(kind, type=Denial): value.decode() for kind, value in kept.items()}


def firsts(server: redis.Redis) -> list[Told]:
    return [msgspec.json.decode(raw, type=Told) for raw in server.lrange(store.DENIALS, 0, -1)]


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def counting(redis_url: str) -> Denials:
    return Denials(RedisWire(redis_url).call, b"pepper")


def test_the_first_of_its_kind_is_told_and_the_others_are_summed(server: redis.Redis, counting: Denials) -> None:
    for _ in range(3):
        counting.key(KEY)
    counting.model(CALLER, "secret")
    counting.tell()
    for _ in range(5):
        counting.key(KEY)
    counting.tell()
    counting.tell()
    assert [(told.count, msgspec.json.decode(told.kind, type=Denial).reason) for told in firsts(server)] == [
        (3, "invalid_key"), (1, "model"),
    ]  # fmt: skip
    assert sorted(sums(server).values()) == ["1:1", "3:8"]
    assert 0 < server.ttl(store.DENIALS) <= denials.LIFE_S


def test_no_text_of_a_credential_is_kept(server: redis.Redis, counting: Denials) -> None:
    counting.key(KEY)
    counting.key("short-secret")
    counting.tell()
    kept = str(sums(server)) + str(firsts(server))
    assert KEY not in kept and "aaaa" not in kept and "short-secret" not in kept and "cret" not in kept
    assert {denial.last4 for denial in sums(server)} == {"WXYZ", None}


def test_a_flood_fills_nothing(server: redis.Redis, counting: Denials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "KEPT", 10)
    monkeypatch.setattr(denials, "KEPT_AN_HOUR", 15)
    for second in range(3):
        for number in range(1000):
            counting.key(f"sk-nobody-{second}-{number}")
        counting.tell()
    found = sums(server)
    assert len(found) <= 16 and len(firsts(server)) <= 16
    assert sum(int(value.partition(":")[2]) for value in found.values()) == 3000
    assert Denial(reason="invalid_key") in found


def test_one_caller_cannot_crowd_out_the_others(server: redis.Redis, counting: Denials) -> None:
    for number in range(1000):
        counting.model(CALLER, f"guess-{number}")
    counting.model(msgspec.structs.replace(CALLER, id="other"), "secret")
    counting.tell()
    found = sums(server)
    assert len(found) == denials.MODELS_OF_ONE + 2
    assert [denial.model for denial in found if denial.caller_id == "other"] == ["secret"]


def test_a_name_is_told_as_a_database_takes_it(server: redis.Redis, counting: Denials) -> None:
    counting.model(CALLER, "a\0b\ud800" + "x" * 5000)
    counting.tell()
    (denial,) = sums(server)
    assert denial.model == "a\ufffdb\ufffd" + "x" * 196


def test_what_redis_did_not_take_is_told_later(redis_url: str, server: redis.Redis) -> None:
    def away(*_: object) -> None:
        raise RedisAway("away")

    counting = Denials(away, b"pepper")
    counting.key(KEY)
    with pytest.raises(RedisAway):
        counting.tell()
    counting._send = RedisWire(redis_url).call
    counting.key(KEY)
    counting.tell()
    assert [told.count for told in firsts(server)] == [2]
