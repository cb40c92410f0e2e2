"""The directory of a process: read once for all who heard of a new version, and never older than heard of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import msgspec
import redis
from cryptography.fernet import Fernet

from app import store
from app.directory import Deployment, Directory, Endpoint, Model, Provider
from app.gateway.redis_wire import RedisWire
from app.gateway.routing import FREE, Known, Routes, Steering, plan
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


def planned(steering: Steering = FREE, endpoint: Endpoint | None = None, **more: Any) -> list[tuple[str, str | None]]:
    """The names of a model's providers in the order of the plan, with what hinders them."""
    names = ("first", "second", "later", "off", "broken", "other")
    able = SimpleNamespace(abilities=frozenset(("chat",)))
    adapters: dict[str, Any] = dict.fromkeys(names, able) | {
        "broken": None,
        "other": SimpleNamespace(abilities=frozenset()),
    }
    known = {
        name: Known(Provider(id=f"id-{name}", name=name, kind="vllm", active=name != "off"), adapters[name])
        for name in names
    }
    ways = tuple(
        Deployment(id=name, provider_id=name, upstream_model="m", priority=1 if name == "later" else 0)
        for name in names
    )
    model = Model(id="m", name="m", capabilities=("chat",), created=1, deployments=ways)
    return [(one.provider.name, one.hindrance) for one in plan(model, "chat", known, endpoint, steering, **more)]


OTHERS = [
    ("off", "Its provider is disabled."),
    ("broken", "Its provider's settings can't be used."),
    ("other", "Providers of the kind vllm can't do chat."),
]
ELSEWHERE = "The request steers to other providers."


def test_a_plan_has_what_can_be_used_in_order_and_then_the_others_with_their_reasons() -> None:
    assert planned() == [("first", None), ("second", None), ("later", None), *OTHERS]
    assert planned(rank=lambda one: one.id != "second")[:3] == [("second", None), ("first", None), ("later", None)]


def test_an_endpoint_narrows_a_plan_to_its_providers() -> None:
    narrow = Endpoint(path="/v1/x", providers=("id-later", "id-off"))
    may_not = "/v1/x may not use its provider."
    assert planned(endpoint=narrow)[:3] == [("later", None), ("first", may_not), ("second", may_not)]


def test_a_request_steers_to_the_providers_that_it_names() -> None:
    assert planned(Steering("later", ("id-first",)))[:3] == [("later", None), ("first", None), ("second", ELSEWHERE)]
    assert [name for name, hindrance in planned(Steering("off")) if hindrance is None] == []
    assert [name for name, hindrance in planned(Steering("first", ("first", "id-first"))) if hindrance is None] == [
        "first"
    ]


def test_fallbacks_alone_come_after_all_others() -> None:
    assert [name for name, _ in planned(Steering(None, ("first",)))[:3]] == ["second", "later", "first"]
    assert [name for name, _ in planned(Steering(None, ("nobody",)))[:3]] == ["first", "second", "later"]
