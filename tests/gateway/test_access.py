"""Who is calling: asked once for all who come at the same time."""

from __future__ import annotations

import gevent
import msgspec
import pytest
import redis

from app import store
from app.directory import CallerRecord
from app.gateway.access import Access
from app.gateway.errors import ApiError
from app.gateway.redis_wire import RedisWire
from app.runtime.key_text import new_key
from app.runtime.sealing import digest
from tests.services.valkey import ValkeyServer

PEPPER = b"pepper"


def test_one_question_answers_all_who_come_with_one_key_at_once(redis_url: str, valkey_server: ValkeyServer) -> None:
    server, wire = redis.Redis.from_url(redis_url), RedisWire(redis_url, timeout_s=60)
    access, key, unknown = Access(wire, PEPPER), new_key(), new_key()
    record = CallerRecord(id="k", kind="key", name="k", person_id="p", username="ada")
    server.set(store.DIRECTORY_VERSION, "first")
    server.set(store.caller(digest(PEPPER, key)), msgspec.json.encode(record))
    wire.call("PING")
    server.config_resetstat()
    with valkey_server.silent():
        calls = [gevent.spawn(access.caller, key) for _ in range(20)]
        others = [gevent.spawn(access.caller, unknown) for _ in range(20)]
        gevent.sleep(0.05)
        assert not any(calling.ready() for calling in (*calls, *others))
    gevent.joinall([*calls, *others], timeout=60)
    assert [calling.value for calling in calls] == [record] * 20
    for calling in others:
        assert isinstance(calling.exception, ApiError) and calling.exception.status == 401
    assert server.info("commandstats")["cmdstat_mget"]["calls"] == 2
    wire.close()
    server.close()


def test_all_who_wait_are_refused_when_redis_does_not_answer(redis_url: str, valkey_server: ValkeyServer) -> None:
    wire = RedisWire(redis_url, timeout_s=0.2)
    access, key = Access(wire, PEPPER), new_key()
    wire.call("PING")
    with valkey_server.silent():
        calls = [gevent.spawn(access.caller, key) for _ in range(5)]
        gevent.joinall(calls, timeout=60)
    for calling in calls:
        with pytest.raises(ApiError) as refused:
            calling.get()
        assert refused.value.status == 503
    wire.close()
