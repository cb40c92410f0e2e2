"""The public status page: off unless a setting says otherwise, for everyone, and silent about what is nobody's business."""

from __future__ import annotations

import msgspec
import pytest
import redis
from flask import Flask

from app import clock, store
from app.domain import providers
from app.domain.catalog import DeploymentSpec
from app.extensions import transaction
from app.ledger.recount import server_run
from app.pages import public_status
from config import Config
from tests.blueprints.portal.conftest import tell, use
from tests.house import People, make_model
from tests.page import Page, read


@pytest.fixture
def visible(app: Flask, config: Config, monkeypatch: pytest.MonkeyPatch) -> Flask:
    portal = msgspec.structs.replace(config.portal, status_page=True)
    monkeypatch.setattr("app.current.config", lambda: msgspec.structs.replace(config, portal=portal))
    public_status.init_public_status(app)
    return app


def page(app: Flask) -> Page:
    answer = app.test_client().get("/status")
    assert answer.status_code == 200
    return read(answer)


def test_it_is_not_there_unless_it_is_switched_on(app: Flask, people: People) -> None:
    assert app.test_client().get("/status").status_code == 404


def test_it_tells_everyone_how_open_models_do_and_nothing_else(
    visible: Flask, people: People, wire: redis.Redis
) -> None:
    inner = transaction(
        providers.create, by=None, name="Rack 7", kind="vllm", config={"base_url": "http://gpu7.lab.internal/v1"}
    )
    model = transaction(
        make_model,
        None,
        "open-one",
        deployments=[DeploymentSpec(provider_id=inner.id, upstream_model="llama-secret-7b")],
    )
    transaction(make_model, None, "guarded-one", restricted=True)
    assert page(visible).alert.heading == "Calls are refused at the moment"
    wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})
    use(people.owner, model, clock.now_ms())
    public_status.init_public_status(visible)
    assert page(visible).alert.heading == "Everything works"
    tell(wire, model.deployments[0].id, failures=3)
    public_status.init_public_status(visible)
    failing = page(visible)
    assert failing.alert.heading == "1 of 1 models fails"
    assert any(text.startswith("Failing since ") for text in failing.texts)
    whole = visible.test_client().get("/status").text
    assert "open-one" in whole and "100%" in whole
    for word in ("Rack 7", "gpu7", "llama-secret", "10.0.0.7", "guarded-one", "broken"):
        assert word not in whole, word
