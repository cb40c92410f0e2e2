"""Of each key and client the first answered and the last refused call are told, once a second and within bounds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import redis

from app import store
from app.directory import CallerRecord
from app.gateway import last_calls
from app.gateway.errors import bad_request
from app.gateway.last_calls import LastCalls
from app.gateway.redis_wire import RedisAway, RedisWire
from app.metering.usage import LastCall
from tests.conftest import SetClock

CALLER = CallerRecord(id="k", kind="key", name="app", person_id="p", username="ada")


def kept(server: redis.Redis, key_id: str = "k") -> dict[str, str]:
    """The request ids, by field."""
    found = server.hgetall(store.last_calls(key_id))
    return {field.decode(): msgspec.json.decode(raw, type=LastCall).request_id for field, raw in found.items()}


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def noting(redis_url: str) -> LastCalls:
    return LastCalls(RedisWire(redis_url).call)


def test_the_first_answer_and_the_last_refusal_of_each_client_stay(server: redis.Redis, noting: LastCalls) -> None:
    for number in range(3):
        noting.answered(CALLER, "curl", f"answered-{number}")
        noting.refused(CALLER, "codex", f"refused-{number}", bad_request("No."))
        noting.refused(CALLER, None, f"unknown-{number}", bad_request("No."))
        noting.tell()
    assert kept(server) == {"ok:curl": "answered-0", "refused:codex": "refused-2", "refused:": "unknown-2"}
    assert 0 < server.ttl(store.last_calls("k")) <= last_calls.LIFE_S
    raw = server.hget(store.last_calls("k"), "refused:codex")
    assert raw is not None
    told = msgspec.json.decode(raw, type=LastCall)
    assert (told.agent, told.status, told.message) == ("codex", 400, "No.")


def test_another_process_leaves_the_first_answer_alone(server: redis.Redis, redis_url: str) -> None:
    for name in ("first", "second"):
        process = LastCalls(RedisWire(redis_url).call)
        process.answered(CALLER, "curl", name)
        process.tell()
    assert kept(server) == {"ok:curl": "first"}


def test_a_busy_key_is_told_once_an_hour(set_clock: SetClock) -> None:
    sent: list[Any] = []
    set_clock(datetime(2026, 11, 30, 10, tzinfo=UTC))
    noting = LastCalls(lambda *command: sent.append(command))
    for minute in (0, 10, 59):
        set_clock(datetime(2026, 11, 30, 10, minute, tzinfo=UTC))
        noting.answered(CALLER, "curl", "r")
        noting.tell()
    assert len(sent) == 1
    set_clock(datetime(2026, 11, 30, 11, tzinfo=UTC))
    noting.tell()
    noting.answered(CALLER, "curl", "r")
    noting.tell()
    assert len(sent) == 2


def test_an_access_token_has_no_key_to_tell_of(noting: LastCalls, server: redis.Redis) -> None:
    token = msgspec.structs.replace(CALLER, kind="token", id="t")
    noting.answered(token, "curl", "r")
    noting.refused(token, "curl", "r", bad_request("No."))
    noting.tell()
    assert kept(server, "t") == {}


def test_a_flood_fills_nothing(server: redis.Redis, noting: LastCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_calls, "KEPT", 10)
    for number in range(1000):
        caller = msgspec.structs.replace(CALLER, id=f"k-{number}")
        noting.refused(caller, None, "r", bad_request("x" * 5_000))
        noting.answered(caller, None, "r")
    noting.tell()
    names = server.keys(store.last_calls("*").replace("{", r"\{").replace("}", r"\}"))
    assert len(names) == 5
    assert all(server.hstrlen(name, "refused:") < 1_500 for name in names)
    late = msgspec.structs.replace(CALLER, id="k-999")
    noting.answered(late, None, "later")
    noting.tell()
    assert kept(server, "k-999") == {"ok:": "later"}


def test_no_message_keeps_others_from_being_told(server: redis.Redis, noting: LastCalls) -> None:
    noting.refused(CALLER, "codex", "odd", bad_request("Half a sign: \ud800."))
    noting.refused(CALLER, "curl", "even", bad_request("No."))
    noting.tell()
    assert kept(server) == {"refused:codex": "odd", "refused:curl": "even"}


def test_what_redis_did_not_take_is_told_later() -> None:
    taken: list[Any] = []

    def send(*command: Any) -> None:
        if not taken:
            taken.append("away")
            raise RedisAway
        taken.append(command)

    noting = LastCalls(send)
    noting.answered(CALLER, "curl", "first")
    noting.refused(CALLER, "curl", "early", bad_request("No."))
    with pytest.raises(RedisAway):
        noting.tell()
    noting.refused(CALLER, "curl", "late", bad_request("No."))
    noting.tell()
    assert b'"first"' in taken[1][-3] and b'"late"' in taken[1][-1]
