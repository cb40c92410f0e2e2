"""The directory of a process: read once for all who heard of a new version, and never older than heard of."""

from __future__ import annotations

import gevent
import msgspec
import redis
from cryptography.fernet import Fernet

from app import store
from app.directory import Directory, Model
from app.gateway.redis_wire import RedisWire
from app.gateway.routing import Routes
from app.providers.addresses import AddressPolicy
from app.providers.settings import Variables
from app.sealing import Sealer
from tests.services.valkey import ValkeyServer


def test_whoever_heard_of_a_new_version_waits_for_it_and_one_reads_it_for_all(
    redis_url: str, valkey_server: ValkeyServer
) -> None:
    server, wire = redis.Redis.from_url(redis_url), RedisWire(redis_url, timeout_s=60)
    routes = Routes(wire, Sealer([Fernet.generate_key()]), AddressPolicy(allow_private=True), Variables(()))

    def publish(version: str) -> None:
        server.set(
            store.DIRECTORY,
            msgspec.json.encode(
                Directory(version=version, models=(Model(id="m", name=version, capabilities=("chat",), created=1),))
            ),
        )

    def call(version: str) -> bool:
        routes.refresh(version)
        return routes.model("first") is None and routes.model("third") is not None

    publish("first")
    routes.refresh("first")
    assert routes.model("first") is not None
    publish("third")
    server.config_resetstat()
    with valkey_server.silent():
        # Some heard of a version that was replaced before it was read.
        calls = [gevent.spawn(call, "second" if n % 2 else "third") for n in range(40)]
        gevent.sleep(0.05)
        assert not any(calling.ready() for calling in calls)
    gevent.joinall(calls, timeout=60)
    assert all(calling.value for calling in calls)
    assert server.info("commandstats")["cmdstat_get"]["calls"] <= 2
    wire.close()
    server.close()
