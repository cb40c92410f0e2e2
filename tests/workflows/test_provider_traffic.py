"""Traffic of providers: attempts, also those that a fallback rescued, and circuit breakers; what health and previews make of
it."""

from __future__ import annotations

import msgspec
import pytest
import redis
from flask import Flask

from app import clock, store
from app.domain import providers
from app.domain.catalog import DeploymentSpec, Model
from app.domain.providers import Provider
from app.extensions import db, transaction
from app.gateway.breakers import Trip, deployment_breaker, provider_breaker
from app.gateway.traffic import Traffic
from app.workflows import provider_health, provider_traffic, route_preview, status
from app.workflows.provider_health import StateOfHealth
from app.workflows.provider_traffic import Seen, joined
from tests.house import People, make_model, sign_in

TRIP = Trip(since_ms=5_000, at_ms=6_000, until_ms=9_000, reason="The provider can't be reached.", times=1)
DEAD = "The provider can't be reached."


BROKEN = Seen(requests=3, errors=3, row=3, since_ms=1_000, reason="broken")
WELL = Seen(requests=40, errors=1, since_ms=2_000, reason="once")
OPEN = Seen(trip=TRIP)


def test_a_provider_fails_when_all_of_it_does_and_in_part_when_some_does() -> None:
    def told(*seen: Seen) -> tuple[int, bool, bool]:
        found = joined(seen)
        return found.failures, found.is_open, found.fails_in_part

    assert told() == told(Seen()) == told(Seen(row=3)) == (0, False, False)  # nothing in the last hour
    assert told(BROKEN) == told(BROKEN, Seen()) == (3, False, True)
    assert told(OPEN) == told(OPEN, OPEN) == (0, True, False)
    assert told(BROKEN, WELL) == told(OPEN, WELL) == (0, False, True)
    assert told(WELL) == (0, False, False)


def test_the_worst_deployment_tells_why_and_since_when() -> None:
    assert (joined([WELL, BROKEN]).reason, joined([WELL, BROKEN]).since) == ("broken", clock.from_ms(1_000))
    assert (joined([BROKEN, OPEN]).reason, joined([BROKEN, OPEN]).since) == (DEAD, clock.from_ms(5_000))
    assert (joined([WELL]).requests, joined([WELL]).errors) == (40, 1)


def test_a_deployment_that_rests_does_not_fail() -> None:
    resting = Seen(trip=msgspec.structs.replace(TRIP, times=0), requests=9, errors=1, row=1, reason="slow down")
    assert not resting.fails and not joined([resting]).is_open


@pytest.fixture
def two(people: People) -> tuple[Provider, Provider, Model]:
    """A model at the providers `first` and `second`."""
    first, second = (
        transaction(providers.create, by=None, name=name, kind="echo", config={}) for name in ("first", "second")
    )
    specs = [
        DeploymentSpec(provider_id=one.id, upstream_model="m", priority=n) for n, one in enumerate((first, second))
    ]
    return first, second, transaction(make_model, None, "small", deployments=specs)


def deployment(model: Model, provider: Provider) -> str:
    return next(way.id for way in model.deployments if way.provider_id == provider.id)


def fail(wire: redis.Redis, id: str, times: int, cost_nano: int = 0) -> None:
    traffic = Traffic(wire.execute_command)
    for _ in range(times):
        traffic.asked(id)
        traffic.failed(id, "broken", cost_nano)
    traffic.tell()


def serve(wire: redis.Redis, id: str, times: int) -> None:
    traffic = Traffic(wire.execute_command)
    for _ in range(times):
        traffic.asked(id)
        traffic.succeeded(id)
    traffic.tell()


def health(provider: Provider) -> StateOfHealth:
    return provider_health.by_provider([provider])[provider.id]


def test_a_provider_whose_failures_are_rescued_is_failing(two, wire: redis.Redis) -> None:
    first, second, model = two
    fail(wire, deployment(model, first), 3, cost_nano=500_000_000)
    serve(wire, deployment(model, second), 3)
    one, other = provider_health.of_all(list(db.session.scalars(providers.search())))
    assert (one.name, one.state, one.reason, one.requests, one.errors) == ("first", "failing", "broken", 3, 3)
    assert (one.models, one.failed_cost) == (["small"], "1.5")
    assert (other.name, other.state, other.requests, other.errors) == ("second", "ok", 3, 0)
    assert provider_health.of_models([model])[model.id].state == "degraded"
    told = [concern.what for concern in status.present().concerns if concern.level == "warning"]
    assert "The provider first is failing: broken" in told


def test_an_open_breaker_is_told_before_there_is_any_traffic(two, wire: redis.Redis) -> None:
    first, second, _ = two
    wire.hset(store.BREAKERS, provider_breaker(first.id), msgspec.json.encode(TRIP))
    found = health(first)
    assert (found.state, found.reason, found.since) == ("failing", DEAD, clock.from_ms(5_000))
    assert health(second).state == "unknown"


def test_a_disabled_provider_is_disabled_and_its_models_are_judged_by_the_others(two, wire: redis.Redis) -> None:
    first, second, model = two
    fail(wire, deployment(model, first), 3)
    serve(wire, deployment(model, second), 1)
    transaction(providers.switch, first, "disabled", by=None)
    assert health(first).state == "disabled"
    assert provider_health.of_models([model])[model.id].state == "ok"
    transaction(providers.switch, second, "disabled", by=None)
    assert provider_health.of_models([model])[model.id].state == "failing"


def test_programs_read_health(two, app: Flask, visitors: People, wire: redis.Redis) -> None:
    first, second, model = two
    fail(wire, deployment(model, first), 3)
    fail(wire, deployment(model, second), 3)
    admin = sign_in(app, "auditor")
    (one, _) = admin.get("/api/status").get_json()["provider_health"]
    assert {"id", "name", "state", "since", "reason", "requests", "errors", "models"} <= set(one)
    assert admin.get(f"/api/providers/{first.id}").get_json()["health"] == {
        "state": "failing", "since": one["since"], "reason": "broken",
    }  # fmt: skip
    assert admin.get("/api/models/small").get_json()["health"]["state"] == "failing"
    [ailing] = admin.get("/api/status").get_json()["model_health"]
    assert (ailing["name"], ailing["state"], ailing["reason"], ailing["served"]) == ("small", "failing", "broken", True)
    others = sign_in(app, "owner").get("/api/status").get_json()
    assert (others["provider_health"], others["model_health"]) == ([], [])


def test_a_model_fails_by_its_own_deployment_though_its_provider_serves_others(two, wire: redis.Redis) -> None:
    first, _, _ = two
    lone, well = (
        transaction(make_model, None, name, deployments=[DeploymentSpec(provider_id=first.id, upstream_model=name)])
        for name in ("lone", "well")
    )
    fail(wire, deployment(lone, first), 3)
    serve(wire, deployment(well, first), 9)
    assert health(first).state == "degraded"
    found = provider_health.of_models([lone, well])
    assert (found[lone.id].state, found[lone.id].reason, found[well.id].state) == ("failing", "broken", "ok")
    assert [(one.name, one.state, one.served) for one in provider_health.not_well()] == [("lone", "failing", True)]
    assert "The model lone is failing: broken" in [concern.what for concern in status.present().concerns]


def test_models_without_an_active_provider_are_told_in_the_status(two, wire: redis.Redis) -> None:
    first, second, model = two
    assert provider_health.not_well() == []
    for one in (first, second):
        transaction(providers.switch, one, "disabled", by=None)
    (found,) = provider_health.not_well()
    assert (found.name, found.state, found.reason, found.served) == (
        "small", "failing", "No active provider serves it.", False,
    )  # fmt: skip
    assert found.since == second.status_at
    transaction(providers.update, second, by=None, name="renamed")
    assert health(second).since == found.since  # not since it was changed
    told = [concern.what for concern in status.present().concerns]
    assert "1 model has no active provider, so calls to it are refused: small." in told
    transaction(lambda: setattr(model, "status", "disabled"))
    assert provider_health.not_well() == []


def test_a_provider_tells_how_many_of_its_breakers_are_open() -> None:
    now_ms = clock.now_ms()
    shut = Seen(trip=msgspec.structs.replace(TRIP, until_ms=now_ms + 60_000))
    told = joined([shut, OPEN, WELL, Seen()])
    assert (told.breakers_open, told.breakers_half_open, told.deployments) == (1, 1, 3)


def test_trouble_is_nothing_while_redis_does_not_answer(two, wire: redis.Redis, monkeypatch) -> None:
    first, _, model = two
    fail(wire, deployment(model, first), 1)
    wire.hset(store.BREAKERS, provider_breaker(first.id), msgspec.json.encode(TRIP))
    assert provider_traffic.in_trouble() == ({deployment(model, first)}, {first.id})
    monkeypatch.setattr("app.current.redis", lambda: store.connect("unix:///nowhere"))
    assert provider_traffic.in_trouble() == (set(), set())


def test_a_preview_tells_what_breakers_do_to_a_route(two, wire: redis.Redis) -> None:
    first, second, model = two
    endpoint = providers.endpoint("chat-completions")

    def told(**until: int) -> list[tuple[str, bool, str]]:
        now_ms = clock.now_ms()
        wire.delete(store.BREAKERS)
        for name, one in (("first", first), ("second", second)):
            if name in until:
                trip = msgspec.structs.replace(TRIP, until_ms=now_ms + until[name])
                wire.hset(store.BREAKERS, deployment_breaker(deployment(model, one)), msgspec.json.encode(trip))
        ways = route_preview.preview(endpoint, {"model": "small"}).candidates
        assert all(way.reason for way in ways)
        return [(way.provider, way.usable, way.breaker) for way in ways]

    assert told() == [("first", True, "closed"), ("second", True, "closed")]
    assert told(first=60_000) == [("second", True, "closed"), ("first", False, "open")]
    assert told(first=-1) == [("second", True, "closed"), ("first", True, "half-open")]
    assert told(first=60_000, second=-1) == [("second", True, "half-open"), ("first", True, "open")]
