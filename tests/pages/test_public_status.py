"""What everyone may know: only open models, without a reason, and gathered once for many who look."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from flask import Flask
from sqlalchemy.exc import OperationalError

from app import clock, store
from app.domain import providers
from app.domain.catalog import Model
from app.extensions import transaction
from app.ledger.recount import server_run
from app.pages import public_status
from app.pages.public_status import PublicStatus
from tests.blueprints.portal.conftest import count_queries, small, tell, use  # noqa: F401
from tests.house import People, make_model

Look = Callable[[], PublicStatus]


@pytest.fixture(autouse=True)
def fresh(inside: Flask) -> None:
    """Nothing was gathered before."""
    public_status.init_public_status(inside)


@pytest.fixture
def present(inside: Flask) -> Look:
    """What somebody who looks is told."""

    def look() -> PublicStatus:
        with inside.test_request_context("/status"):
            return public_status.present()[0]

    return look


def test_only_open_models_of_the_catalogue_are_named(
    present: Look, people: People, small: Model, wire: redis.Redis
) -> None:  # noqa: F811
    for name, values in {
        "hidden": {"status": "hidden"},
        "off": {"status": "disabled"},
        "guarded": {"restricted": True},
    }.items():
        transaction(make_model, None, name, **values)
    use(people.owner, small, clock.now_ms())
    use(people.owner, small, clock.now_ms(), outcome="error", status=502)
    tell(wire, small.deployments[0].id, failures=3)
    now = present()
    assert now.models is not None
    (line,) = now.models
    assert (line.name, line.health.state, line.health.reason, line.served) == ("small", "failing", None, True)
    assert line.month is not None and line.month.total.error_share == 0.5
    assert (now.failing, now.degraded) == (1, 0)


def test_it_tells_whether_calls_are_accepted(present: Look, people: People, inside: Flask, wire: redis.Redis) -> None:
    assert not present().accepts_calls
    wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})
    assert not present().accepts_calls  # still fresh
    public_status.init_public_status(inside)
    assert present().accepts_calls


def test_it_is_gathered_again_after_half_a_minute(
    present: Look,
    people: People,
    small: Model,  # noqa: F811
    count_queries: Callable[[], int],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = present()
    count_queries()
    transaction(providers.switch, small.deployments[0].provider, "disabled", by=None)
    count_queries()
    assert present() is first
    assert count_queries() == 0
    now_ns = clock.now_ns() + public_status.FRESH_MS * 10**6
    monkeypatch.setattr("app.clock.now_ns", lambda: now_ns)
    models = present().models
    assert models is not None and not models[0].served


def test_without_a_database_the_gateway_is_still_told(
    present: Look, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(public_status.performance, "month_of", gone)
    assert present().models is None
