"""The directory of a process: read once for all who heard of a new version, and never older than heard of."""

from __future__ import annotations

import gevent
import msgspec
import redis
from cryptography.fernet import Fernet

from app import store
from app.directory import Deployment, Directory, Model, Provider
from app.gateway.redis_wire import RedisWire
from app.gateway.routing import Routes
from app.providers.addresses import AddressPolicy
from app.providers.settings import Variables
from app.runtime.sealing import Sealer
from config import load
from tests.services.valkey import ValkeyServer

STORED = [
    ("fits", {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "UPSTREAM_KEY"}),
    ("another program's secret", {"api_key_env": "AWS_SECRET_ACCESS_KEY"}),
    ("our own setting", {"api_key_env": "CONFIG_SECURITY_KEY_PEPPER"}),
    ("a line break", {"base_url": "http://127.0.0.1:9/v1\r\nX: y"}),
    ("a key of two lines", {"api_key": "sk-1\r\nX: y"}),
]


def test_a_provider_that_was_stored_before_a_rule_is_no_candidate(redis_url: str) -> None:
    ways = tuple(Deployment(id=name, provider_id=name, upstream_model="m") for name, _ in STORED)
    upstreams = tuple(Provider(id=name, name=name, kind="openai", settings=settings) for name, settings in STORED)
    model = Model(id="m", name="m", capabilities=("chat",), created=1, deployments=ways)
    wire = RedisWire(redis_url, timeout_s=60)
    with redis.Redis.from_url(redis_url) as server:
        directory = Directory(version="1", models=(model,), providers=upstreams)
        server.set(store.DIRECTORY, msgspec.json.encode(directory))
    variables = Variables(load({}).upstream.env)
    routes = Routes(wire, Sealer([Fernet.generate_key()]), AddressPolicy(allow_private=True), variables)
    routes.refresh("1")
    assert [way.provider.name for way in routes.candidates(model, "/v1/chat/completions", "chat")] == ["fits"]
    wire.close()


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
