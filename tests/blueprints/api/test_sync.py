"""An admin connects a LiteLLM, looks at a plan, applies it, and decides a conflict, by the API alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from app.jobs import litellm as jobs
from tests.house import People, Program, sign_in
from tests.services.litellm import MASTER_KEY, LiteLLMServer


@pytest.fixture(scope="module")
def running() -> Iterator[LiteLLMServer]:
    server = LiteLLMServer()
    yield server
    server.stop()


@pytest.fixture
def there(running: LiteLLMServer) -> LiteLLMServer:
    running.reset()
    return running


@pytest.fixture
def admin(app: Flask, visitors: People) -> Program:
    return sign_in(app, "admin")


def connect(admin: Any, there: LiteLLMServer) -> None:
    answer = admin.put("/api/sync/connection", json={"url": there.url, "master_key": MASTER_KEY})
    assert answer.status_code == 200
    assert answer.json == {"url": there.url, "master_key": "••••ellm", "interval_minutes": 0, "timeout_s": 10}


def planned(app: Any, admin: Any, **body: Any) -> Any:
    answer = admin.post("/api/sync/plans", json=body)
    assert (answer.status_code, answer.json["state"]) == (202, "reading")
    with app.app_context():
        jobs.make_plan(answer.json["id"])
    return admin.get(f"/api/sync/plans/{answer.json['id']}").json


def test_a_plan_is_looked_at_and_applied(app: Any, admin: Any, there: LiteLLMServer) -> None:
    there.user("bob", user_email="bob@example.org")
    connect(admin, there)
    assert admin.post("/api/sync/connection/test").json["result"] == "ok"
    plan = planned(app, admin, entities=["users"])
    assert (plan["state"], plan["counts"]) == ("ready", {"create": 1, "update": 0, "delete": 0, "conflict": 0})
    steps = admin.get(f"/api/sync/plans/{plan['id']}/steps?side=portico&act=create&entity=users").json["data"]
    [step] = steps
    assert (step["name"], step["external_id"], step["state"]) == ("bob", "bob", "waiting")
    assert step["fields"][0] == {"name": "email", "portico": None, "litellm": "bob@example.org", "last": None}
    assert not admin.get(f"/api/sync/plans/{plan['id']}/steps?side=litellm").json["data"]
    run = admin.post(f"/api/sync/plans/{plan['id']}/apply")
    assert (run.status_code, run.json["state"]) == (202, "running")
    assert admin.post(f"/api/sync/plans/{plan['id']}/apply").json["id"] == run.json["id"]
    with app.app_context():
        jobs.go_on(run.json["id"])
    done = admin.get(f"/api/sync/runs/{run.json['id']}").json
    assert (done["state"], done["done"], done["total"], done["counts"]) == ("done", 1, 1, {"create": 1})
    status = admin.get("/api/sync/status").json
    assert (status["state"], status["last_run"]["id"], status["next_run"]) == ("ok", done["id"], None)
    assert admin.post(f"/api/sync/runs/{done['id']}/resume").json["state"] == "done"


def test_a_conflict_is_decided(app: Any, admin: Any, there: LiteLLMServer) -> None:
    there.user("owner", user_email="owner@example.org", rpm_limit=5)
    connect(admin, there)
    planned(app, admin, entities=["users"])
    [conflict] = admin.get("/api/sync/conflicts").json["data"]
    assert [field["name"] for field in conflict["fields"]] == ["email", "rpm_limit"]
    path = f"/api/sync/conflicts/{conflict['id']}/decision"
    for bad in ({}, {"winner": "litellm", "fields": {}}, {"fields": {"other": "litellm"}}, {"winner": "me"}):
        assert admin.post(path, json=bad).status_code == 422
    assert admin.post(path, json={"winner": "litellm"}).json["decision"] == {"email": "litellm", "rpm_limit": "litellm"}
    assert planned(app, admin, entities=["users"])["counts"]["update"] == 1


def test_policies_are_changed_one_by_one(admin: Any) -> None:
    before = admin.get("/api/sync/policies").json
    assert before["models"] == {"create": "pull", "conflict": "ask", "delete": "none"}
    assert before["keys"]["create"] == "none"
    after = admin.put("/api/sync/policies", json={"users": {"delete": "pull"}}).json
    assert after == before | {"users": {"create": "both", "conflict": "ask", "delete": "pull"}}
    for create in ("push", "both"):
        refused = admin.put("/api/sync/policies", json={"models": {"create": create}})
        assert (refused.status_code, refused.json["error"]["field"]) == (422, "models.create")


def test_another_origin_needs_the_key_again(admin: Any, there: LiteLLMServer) -> None:
    connect(admin, there)
    refused = admin.put("/api/sync/connection", json={"url": "http://other.example", "master_key": "••••ellm"})
    assert (refused.status_code, refused.json["error"]["field"]) == (422, "master_key")
    assert admin.delete("/api/sync/connection").status_code == 204
    assert admin.get("/api/sync/connection").status_code == 404
    assert admin.get("/api/sync/status").json["state"] == "off"
    assert admin.post("/api/sync/plans", json={}).status_code == 409
