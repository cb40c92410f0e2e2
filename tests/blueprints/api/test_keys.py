"""Keys over the management API: noted, paused, rotated, with what is known of each secret."""

from __future__ import annotations

import pytest
from flask import Flask

from app import clock
from app.ids import new_id
from app.ledger.posting import post
from app.metering.usage import UsageEvent
from tests.house import People, sign_in


def use(person_id: str, key_id: str, secret_id: str, at_ms: int) -> None:
    event = UsageEvent(
        request_id=new_id(), attempt=1, at_ms=at_ms, person_id=person_id, key_id=key_id, secret_id=secret_id, model="m",
        endpoint="/v1/chat/completions", api_type="chat", outcome="ok", status=200,
    )  # fmt: skip
    post([event])


def test_a_key_is_paused_and_resumed_by_a_change(app: Flask, visitors: People) -> None:
    owner = sign_in(app, "owner")
    made = owner.post("/api/keys", json={"name": "app", "note": "website"}).get_json()
    assert (made["note"], made["status"], made["paused_at"]) == ("website", "active", None)
    path = f"/api/keys/{made['id']}"
    paused = owner.patch(path, json={"paused": True}).get_json()
    assert (paused["status"], paused["note"]) == ("paused", "website")
    assert paused["paused_at"]
    assert owner.patch(path, json={"note": None}).get_json()["status"] == "paused"
    resumed = owner.patch(path, json={"paused": False}).get_json()
    assert (resumed["status"], resumed["paused_at"], resumed["note"]) == ("active", None, None)
    assert owner.patch(path, json={"paused": "yes"}).status_code == 422
    assert owner.patch(path, json={"note": "n" * 501}).get_json()["error"]["field"] == "note"


def test_a_changed_limit_leaves_the_period_of_a_budget(app: Flask, visitors: People) -> None:
    owner = sign_in(app, "owner")
    budget = {"limit": "1", "period": "day", "timezone": "Europe/Berlin"}
    made = owner.post("/api/keys", json={"name": "app", "budget": budget}).get_json()
    for path, change in (
        (f"/api/keys/{made['id']}", {"budget": {"limit": "2"}}),
        (f"/api/budgets/key/{made['id']}", None),
    ):
        answer = owner.patch(path, json=change) if change else owner.put(path, json={"limit": "2"})
        assert answer.status_code == 200
        told = owner.get(f"/api/budgets/key/{made['id']}").get_json()
        assert (told["limit"], told["period"], told["timezone"]) == ("2", "day", "Europe/Berlin")
    other = owner.post("/api/keys", json={"name": "other", "budget": {"limit": "1"}}).get_json()
    told = owner.get(f"/api/budgets/key/{other['id']}").get_json()
    assert (told["period"], told["timezone"]) == ("month", "UTC")


@pytest.mark.parametrize(("who", "status"), [("stranger", 404), ("auditor", 403), ("admin", 200)])
def test_who_may_pause_somebody_elses_key(app: Flask, visitors: People, who: str, status: int) -> None:
    made = sign_in(app, "owner").post("/api/keys", json={"name": "app"}).get_json()
    assert sign_in(app, who).patch(f"/api/keys/{made['id']}", json={"paused": True}).status_code == status
    told = sign_in(app, "owner").get(f"/api/keys/{made['id']}").get_json()
    assert told["status"] == ("paused" if who == "admin" else "active")


def test_a_rotated_key_tells_which_of_its_secrets_is_used_and_when(app: Flask, visitors: People) -> None:
    owner = sign_in(app, "owner")
    made = owner.post("/api/keys", json={"name": "app"}).get_json()
    path = f"/api/keys/{made['id']}"
    [first] = owner.get(path).get_json()["secrets"]
    assert (first["prefix"], first["expires_at"], first["last_used_at"]) == (made["key"][:8], None, None)
    rotated = owner.post(f"{path}/rotation", json={"overlap_s": 3600})
    assert rotated.status_code == 201
    at_ms = clock.now_s() * 1000
    with app.app_context():
        use(visitors.owner.id, made["id"], first["id"], at_ms)
    told = owner.get(path).get_json()
    new, old = told["secrets"]
    assert (new["last4"], new["expires_at"], new["last_used_at"]) == (rotated.get_json()["key"][-4:], None, None)
    assert (old["id"], old["last_used_at"]) == (first["id"], told["last_used_at"])
    assert old["expires_at"]
