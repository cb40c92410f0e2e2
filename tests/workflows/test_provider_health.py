"""How a provider does: what its list and its traffic tell, the worse of both, since when and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import clock
from app.domain import catalog, providers
from app.domain.catalog import DeploymentSpec
from app.extensions import db, transaction
from app.workflows import model_lists, provider_health, status
from app.workflows.model_lists import ModelList
from app.workflows.provider_health import StateOfHealth, health_of
from app.workflows.provider_traffic import Traffic
from tests.house import People, make_model
from tests.services.upstream import Upstream, failure

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
EARLIER = NOON - timedelta(minutes=30)
MODELS = "/v1/models"


def listing(**values: Any) -> ModelList:
    return ModelList(**{"version": 1, "at_ms": NOON_MS, "since_ms": NOON_MS} | values)


GOOD = listing()
BAD = listing(failures=3, reason="No route.")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, StateOfHealth(state="unknown", reason="It has not been asked yet.")),
        ({"listing": GOOD}, StateOfHealth(state="ok", since=NOON)),
        ({"listing": listing(failures=1, reason="No.")}, StateOfHealth(state="degraded", since=NOON, reason="No.")),
        ({"listing": listing(failures=2, reason="No.")}, StateOfHealth(state="degraded", since=NOON, reason="No.")),
        ({"listing": BAD}, StateOfHealth(state="failing", since=NOON, reason="No route.")),
        ({"listing": GOOD, "traffic": Traffic()}, StateOfHealth(state="ok", since=NOON)),
        (
            {"listing": GOOD, "traffic": Traffic(requests=9, failures=3, since=EARLIER, reason="500.")},
            StateOfHealth(state="failing", since=EARLIER, reason="500."),
        ),
        (
            {"listing": GOOD, "traffic": Traffic(is_open=True, since=EARLIER)},
            StateOfHealth(state="failing", since=EARLIER, reason="Its last calls failed."),
        ),
        (
            {"listing": listing(has_list=False), "traffic": Traffic(requests=1, since=EARLIER)},
            StateOfHealth(state="ok", since=EARLIER),
        ),
        (
            {"listing": BAD, "traffic": Traffic(requests=5)},
            StateOfHealth(state="failing", since=NOON, reason="No route."),
        ),
    ],
)
def test_the_worse_of_list_and_traffic_is_told(told: dict[str, Any], expected: StateOfHealth) -> None:
    assert health_of(status="active", **told) == expected


def test_a_provider_that_is_switched_off_is_neither_well_nor_ill() -> None:
    found = health_of(status="disabled", changed_at=NOON, listing=BAD, traffic=Traffic(requests=1, failures=9))
    assert (found.state, found.since) == ("disabled", NOON)


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


def of_model(name: str) -> StateOfHealth:
    model = catalog.model(name)
    return provider_health.of_models([model])[model.id]


def ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five minutes pass, and the job runs."""
    now_ns = clock.now_ns() + 300 * 10**9
    monkeypatch.setattr("app.clock.now_ns", lambda: now_ns)
    model_lists.refresh(every_s=300)


def test_a_provider_that_stops_answering_is_named_in_the_status(
    people: People, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"base_url": upstream.url, "timeout_s": 2}
    id = transaction(providers.create, by=None, name="Ailing", kind="vllm", config=config).id
    model = transaction(make_model, people.admin, deployments=[DeploymentSpec(provider_id=id, upstream_model="small")])

    def states() -> tuple[str, str]:
        db.session.rollback()
        (row,) = [one for one in status.present().providers if one.name == "Ailing"]
        assert row.models == ["small"]
        return row.state, of_model(model.name).state

    assert states() == ("unknown", "unknown")
    ask_again(monkeypatch)
    assert states() == ("ok", "ok")
    upstream.always(MODELS, failure(500, "Out of order"))
    seen = []
    for _ in range(3):
        ask_again(monkeypatch)
        seen.append(states())
    assert seen == [("degraded", "degraded"), ("degraded", "degraded"), ("failing", "failing")]
    assert "The provider Ailing is failing: Out of order" in [one.what for one in status.present().concerns]
    upstream.reset()
    ask_again(monkeypatch)
    assert states() == ("ok", "ok")


def test_a_model_with_one_good_provider_of_two_is_degraded(
    people: People, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [
        transaction(providers.create, by=None, name=name, kind="vllm", config={"base_url": f"{origin}/v1", "timeout_s": 2}).id
        for name, origin in (("Good", upstream.origin), ("Gone", "http://127.0.0.1:9"))
    ]  # fmt: skip
    specs = [DeploymentSpec(provider_id=id, upstream_model="small") for id in ids]
    name = transaction(make_model, people.admin, deployments=specs).name
    for _ in range(3):
        ask_again(monkeypatch)
    found = of_model(name)
    assert (found.state, found.reason) == ("degraded", "1 of its 2 deployments fails.")
    for id in ids:
        transaction(lambda id=id: providers.switch(providers.get(id), "disabled", by=None))
    assert of_model(name).state == "failing"
