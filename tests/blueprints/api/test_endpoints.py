"""The dry run of a /v1 path: which deployment would serve a request, and why not the others."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from app.domain import providers
from app.domain.catalog import DeploymentSpec
from app.extensions import db, transaction
from app.gateway.endpoints import TABLE
from tests.house import People, make_model, sign_in

CHAT = "/api/endpoints/chat-completions"


@pytest.fixture
def ids(people: People) -> dict[str, str]:
    """Three providers that serve `small` and one that is switched off."""

    def make() -> dict[str, str]:
        made = {
            name: providers.create(by=None, name=name, kind="echo", config={}, status=status).id
            for name, status in (("first", "active"), ("second", "active"), ("spare", "active"), ("off", "disabled"))
        }
        ranks = {"first": (0, 3), "second": (0, 1), "spare": (5, 1), "off": (0, 9)}
        make_model(
            None,
            "small",
            deployments=[
                DeploymentSpec(provider_id=made[name], upstream_model=f"at-{name}", priority=priority, weight=weight)
                for name, (priority, weight) in ranks.items()
            ],
        )
        make_model(None, "stopped", status="disabled")
        return made

    return transaction(make)


def rehearsed(app: Flask, path: str = CHAT, **request: Any) -> dict[str, Any]:
    answer = sign_in(app, "admin").post(f"{path}/test", json={"request": request})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.get_json()
    return told


def test_the_first_way_and_the_order_of_the_others_are_told(app: Flask, ids: dict[str, str]) -> None:
    told = rehearsed(app, model="small", messages=[])
    assert told["result"] == "served"
    assert told["deployment"]["provider_id"] == ids["first"]
    assert "3 of 4 of the calls" in told["reason"]
    assert [(way["provider"], way["usable"]) for way in told["candidates"]] == [
        ("first", True), ("second", True), ("spare", True), ("off", False)]  # fmt: skip
    assert told["candidates"][3]["reason"] == "Its provider is disabled."


def test_steering_and_the_mapping_narrow_the_ways(app: Flask, ids: dict[str, str]) -> None:
    assert rehearsed(app, model="small", provider="spare")["deployment"]["upstream_model"] == "at-spare"
    told = rehearsed(app, model="small", fallback_providers=["first"])
    assert [way["provider"] for way in told["candidates"] if way["usable"]] == ["second", "spare", "first"]
    assert rehearsed(app, model="small", provider="off")["result"] == "no_deployment"
    admin = sign_in(app, "admin")
    assert admin.put(CHAT, json={"mapping": {"providers": [ids["second"]]}}).status_code == 200
    told = rehearsed(app, model="small")
    assert told["deployment"]["provider"] == "second"
    assert "may not use its provider" in told["candidates"][1]["reason"]


def test_what_would_be_refused_says_why(app: Flask, ids: dict[str, str]) -> None:
    assert rehearsed(app, model="nothing")["result"] == "model_not_found"
    assert rehearsed(app, model="stopped")["reason"] == "The model is disabled."
    assert rehearsed(app, "/api/endpoints/embeddings", model="small")["result"] == "not_capable"
    assert rehearsed(app, "/api/endpoints/models")["result"] == "served"
    admin = sign_in(app, "admin")
    for body, field in (
        ({}, "request"),
        ({"request": {}}, "request.model"),
        ({"request": {"model": 3}}, "request.model"),
        ({"request": {"model": "small", "provider": 3}}, "request.provider"),
        ({"request": {"model": "small", "fallback_providers": "first"}}, "request.fallback_providers"),
    ):
        refused = admin.post(f"{CHAT}/test", json=body)
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, field)
    assert admin.post("/api/endpoints/nothing/test", json={"request": {"model": "small"}}).status_code == 404
    admin.put(CHAT, json={"active": False})
    assert rehearsed(app, model="small")["result"] == "endpoint_disabled"
    assert sign_in(app, "owner").post(f"{CHAT}/test", json={"request": {"model": "small"}}).status_code == 403


def test_the_list_has_what_is_served_and_narrows_to_what_is_on_or_off(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    with app.app_context():  # as an older database has it
        transaction(lambda: db.session.add(providers.Endpoint(id="moderations", path="/v1/moderations")))

    def listed(query: str = "") -> list[str]:
        return [row["path"] for row in admin.get(f"/api/endpoints{query}").get_json()["data"]]

    assert listed() == listed("?status=active") == sorted(endpoint.path for endpoint in TABLE)
    assert admin.get("/api/endpoints/moderations").status_code == 404
    before = admin.get("/api/endpoints/models").get_json()
    after = admin.put("/api/endpoints/models", json={"active": False}).get_json()
    assert after["created_at"] == before["created_at"] and after["updated_at"] > before["updated_at"]
    assert listed("?status=active") == sorted(endpoint.path for endpoint in TABLE if endpoint.path != "/v1/models")
    assert listed("?status=inactive") == ["/v1/models"]
    assert admin.get("/api/endpoints?status=asleep").status_code == 422
    assert rehearsed(app, "/api/endpoints/models")["result"] == "endpoint_disabled"


def test_tests_are_throttled(app: Flask, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.domain.throttles.A_PERSON", 2)
    admin = sign_in(app, "admin")
    answers = [admin.post(f"{CHAT}/test", json={"request": {"model": "x"}}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0
