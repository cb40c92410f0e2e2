"""Which way to a model: the plan, and the directory of a process, never older than heard of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import msgspec
import pytest
import redis
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from app import store
from app.directory import (
    CallerRecord,
    Deployment,
    Directory,
    Endpoint,
    Model,
    PersonalCredential,
    Provider,
    place_of_credential,
)
from app.gateway.breakers import Trip, deployment_breaker, provider_breaker, trip_of
from app.gateway.redis_wire import RedisWire
from app.gateway.routing import (
    FREE,
    PROBED_S,
    Candidate,
    Known,
    Routes,
    Steering,
    by_chance,
    by_conversation,
    in_health,
    in_order,
    plan,
    to_probe,
    wait_s,
)
from app.providers import adapter
from app.providers.addresses import AddressPolicy
from app.providers.settings import Variables, destination_of
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


def tripped(until_ms: int, times: int = 1, *, hangs: bool = False) -> Trip:
    reason = "The provider can't be reached."
    return Trip(since_ms=0, at_ms=0, until_ms=until_ms, reason=reason, times=times, hangs=hangs)


def test_an_open_breaker_takes_a_deployment_out_of_a_plan_and_tells_why() -> None:
    trips = {deployment_breaker("first"): tripped(1_000), provider_breaker("id-second"): tripped(1_500, times=0)}
    assert planned(trips=trips, now_ms=500)[:3] == [
        ("later", None),
        ("first", "Its circuit breaker is open until 00:00:01 UTC: The provider can't be reached."),
        ("second", "It asked to be left alone until 00:00:01 UTC: The provider can't be reached."),
    ]


def test_a_half_open_deployment_comes_after_all_closed_ones() -> None:
    trips = {deployment_breaker("first"): tripped(1_000)}
    assert planned(trips=trips, now_ms=1_000)[:3] == [("second", None), ("later", None), ("first", None)]


def test_where_no_breaker_is_closed_all_are_tried_the_open_ones_last() -> None:
    trips = {deployment_breaker(name): tripped(until) for name, until in (("first", 9), ("second", 3), ("later", 3))}
    assert planned(trips=trips, now_ms=5)[:3] == [("second", None), ("later", None), ("first", None)]


def test_where_no_breaker_is_closed_those_that_hang_are_left_to_their_probe() -> None:
    spans = (("first", 9, True), ("second", 3, True), ("later", 9, False))
    trips = {deployment_breaker(name): tripped(until, hangs=hangs) for name, until, hangs in spans}
    assert planned(trips=trips, now_ms=5)[:3] == [
        ("later", None),
        ("second", "One request at a time may try it: The provider can't be reached."),
        ("first", "Its circuit breaker is open until 00:00:00 UTC: The provider can't be reached."),
    ]


def candidates(priorities_and_weights: list[tuple[int, int]]) -> list[Candidate]:
    return [
        Candidate(
            Deployment(id=f"d{n}", provider_id=f"p{n % 3}", upstream_model="m", priority=priority, weight=weight),
            Provider(id=f"p{n % 3}", name=f"p{n % 3}", kind="vllm"),
            None,
        )
        for n, (priority, weight) in enumerate(priorities_and_weights)
    ]


def ids(ordered: list[Candidate]) -> list[str]:
    return [one.deployment.id for one in ordered]


def test_a_call_probes_what_it_would_use_were_it_well_and_nothing_else() -> None:
    ways = candidates([(0, 1), (1, 1), (2, 1)])

    def probed(**until_ms: int) -> str | None:
        trips = {deployment_breaker(id): tripped(until) for id, until in until_ms.items()}
        one = to_probe(ways, trips, 5)
        return one and one.deployment.id

    assert (probed(d0=5), probed(d0=9, d1=5), probed(d1=5)) == ("d0", "d1", None)
    assert probed(d0=5, d1=5, d2=5) is None  # where none is closed all are tried anyhow
    trips = {deployment_breaker(f"d{n}"): tripped(5 if n else 9, hangs=n != 1) for n in range(3)}
    one = to_probe(ways, trips, 5)  # but not those that hang
    assert one is not None and one.deployment.id == "d2"


@pytest.mark.parametrize(("until_ms", "waits_s"), [((9_001, 20_000), 5), ((4_000, 9_000), PROBED_S)])
def test_who_is_refused_is_told_when_something_may_be_tried_again(until_ms: tuple[int, int], waits_s: int) -> None:
    ways = candidates([(0, 1), (0, 1)])
    trips = {deployment_breaker(f"d{n}"): tripped(until, hangs=True) for n, until in enumerate(until_ms)}
    tried, alone = in_health(ways, trips, 5_000)
    assert (tried, wait_s(alone, 5_000)) == ([], waits_s)


def test_a_call_that_probes_begins_with_that() -> None:
    ways, trips = candidates([(0, 1), (0, 1)]), {provider_breaker("p1"): tripped(5)}
    assert ids(in_health(ways, trips, 5)[0]) == ["d0", "d1"]
    assert ids(in_health(ways, trips, 5, provider_breaker("p1"))[0]) == ["d1", "d0"]


WAYS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=8).map(candidates)


@given(ways=WAYS, conversation=st.text(max_size=8), data=st.data())
def test_a_conversation_moves_only_when_its_own_deployment_goes(ways, conversation, data) -> None:
    rank = by_conversation(conversation)
    before = ids(in_order(ways, FREE, rank))
    lost = data.draw(st.sampled_from(ways))
    after = ids(in_order([one for one in ways if one is not lost], FREE, rank))
    assert after == [id for id in before if id != lost.deployment.id]


@given(ways=WAYS, conversation=st.text(max_size=8), data=st.data())
def test_an_origin_comes_first_within_its_priority_and_changes_no_other_place(ways, conversation, data) -> None:
    rank = by_conversation(conversation)
    origin = data.draw(st.sampled_from(ways))
    plain, moved = in_order(ways, FREE, rank), in_order(ways, FREE, rank, origin.deployment.id)
    assert [one.deployment.priority for one in moved] == sorted(one.deployment.priority for one in ways)
    equals = [one for one in moved if one.deployment.priority == origin.deployment.priority]
    assert equals[0] is origin
    assert [one for one in moved if one is not origin] == [one for one in plain if one is not origin]


@given(
    ways=WAYS,
    spans=st.dictionaries(
        st.sampled_from(
            [deployment_breaker(f"d{n}") for n in range(8)] + [provider_breaker(f"p{n}") for n in range(3)]
        ),
        st.tuples(st.integers(0, 10), st.booleans()),
    ),
    now_ms=st.integers(0, 10),
)
def test_breakers_lose_no_candidate_and_refuse_a_call_only_where_all_hang(ways, spans, now_ms) -> None:
    trips = {name: tripped(until, hangs=hangs) for name, (until, hangs) in spans.items()}
    tried, alone = in_health(ways, trips, now_ms)
    assert sorted(ids(tried + alone)) == sorted(ids(ways))
    assert tried or all(one.trip and one.trip.hangs for one in alone)
    assert all(one.hindrance is None for one in tried) and all(one.hindrance for one in alone)
    closed = [one for one in ways if trip_of(trips, one.deployment.id, one.provider.id) is None]
    assert [one for one in tried if one.trip is None] == closed
    assert tried[: len(closed)] == closed
    if closed:
        assert all(one.trip is None or not one.trip.is_open(now_ms) for one in tried)


def test_conversations_share_deployments_by_weight_and_so_do_calls_by_chance() -> None:
    ways = candidates([(0, 1), (0, 3), (0, 0)])
    for ranks in ([by_conversation(str(n)) for n in range(2_000)], [by_chance] * 2_000):
        first = [in_order(ways, FREE, rank)[0].deployment.id for rank in ranks]
        assert 0.70 < first.count("d1") / len(first) < 0.80
        assert first.count("d2") == 0


def test_a_model_is_found_by_all_its_names_and_the_default_by_all_that_no_model_has(redis_url: str) -> None:
    wire = RedisWire(redis_url, timeout_s=60)
    models = (
        Model(id="1", name="large", capabilities=("chat",), created=1, aliases=("gpt-4", "small", "big")),
        Model(id="2", name="small", capabilities=("chat",), created=1),
        Model(id="3", name="off", capabilities=("chat",), created=1, aliases=("gone",), status="disabled"),
    )
    with redis.Redis.from_url(redis_url) as server:
        server.set(store.DIRECTORY, msgspec.json.encode(Directory(version="1", models=models)))
    policy, sealer = AddressPolicy(allow_private=True), Sealer([Fernet.generate_key()])

    def found(default: str | None, *names: str) -> list[str | None]:
        routes = Routes(wire, sealer, policy, Variables(()), default)
        routes.refresh("1")
        assert routes.model("unheard") is None
        return [(model := routes.model_for(name)) and model.name for name in names]

    assert found(None, "large", "gpt-4", "small", "off", "gone", "unheard") == [
        "large",
        "large",
        "small",
        None,
        None,
        None,
    ]
    assert found("big", "unheard", "gone", "off", "small") == ["large", None, None, "small"]
    assert found("off", "unheard") == found("unheard too", "unheard") == [None]
    wire.close()


def test_a_callers_own_credential_has_an_adapter_of_its_own_that_is_kept_and_bounded(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gateway.routing.MOST_PERSONAL", 1)
    settings = {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "UPSTREAM_KEY", "personal_credentials": True}
    upstream = Provider(id="p", name="p", kind="openai", settings=settings)
    way = Deployment(id="d", provider_id="p", upstream_model="m")
    model = Model(id="m", name="m", capabilities=("chat",), created=1, deployments=(way,))
    with redis.Redis.from_url(redis_url) as server:
        server.set(store.DIRECTORY, msgspec.json.encode(Directory(version="1", models=(model,), providers=(upstream,))))
    wire, sealer = RedisWire(redis_url, timeout_s=60), Sealer([Fernet.generate_key()])
    routes = Routes(wire, sealer, AddressPolicy(allow_private=True), Variables(load({}).upstream.env))
    routes.refresh("1")
    destination = destination_of(adapter("openai").Settings, settings)

    def asked(person: str, destination: str = destination) -> Candidate:
        sealed = sealer.seal(person.encode(), place_of_credential(f"of-{person}", person, "p", destination))
        own = {"p": PersonalCredential(id=f"of-{person}", sealed=kept.setdefault((person, destination), sealed))}
        caller = CallerRecord(id="k", kind="key", name="k", person_id=person, username=person, credentials=own)
        [found] = routes.with_credentials(caller, routes.candidates(model, "/v1/chat/completions", "chat"))
        return found

    kept: dict[tuple[str, str], str] = {}
    ada = asked("ada")
    assert (ada.credential_id, ada.adapter.settings.secrets()) == ("of-ada", ("ada",))
    assert asked("ada").adapter is ada.adapter
    assert asked("bob").adapter.settings.secrets() == ("bob",)
    assert asked("ada").adapter is not ada.adapter, "it was the oldest"
    moved = asked("ada", "elsewhere")
    assert (moved.credential_id, moved.adapter) == (None, routes._providers["p"].adapter)
    wire.close()
