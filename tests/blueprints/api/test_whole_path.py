"""The management API from an empty Portico to a key that works on /v1's noticeboard."""

import msgspec
import redis
from flask import Flask

from app import current, directory, store
from app.runtime.sealing import digest
from tests.house import PASSWORD, People, sign_in


def test_an_admin_offers_a_model_and_a_person_gets_a_key_for_it(app: Flask, people: People, wire: redis.Redis) -> None:
    admin, owner = sign_in(app, "admin"), sign_in(app, "owner")
    made = admin.post("/api/providers", json={"name": "Echo", "provider": "echo", "config": {"delay_ms": 1}})
    assert made.status_code == 201, made.text
    provider = made.get_json()
    made = admin.post(
        "/api/models",
        json={
            "name": "lab/secret",
            "restricted": True,
            "capabilities": ["chat"],
            "price": {"input_per_mtok": "0.15", "output_per_mtok": "0.6"},
            "deployments": [{"provider_id": provider["id"], "upstream_model": "echo"}],
        },
    )
    assert made.status_code == 201, made.text
    assert made.get_json()["price"]["input_per_mtok"] == "0.15"
    assert made.get_json()["price"]["per_image"] is None
    assert admin.get("/api/models/lab/secret").get_json()["deployments"][0]["upstream_model"] == "echo"
    assert "deployments" not in owner.get("/api/models/lab/secret").get_json()

    asked = owner.post("/api/subscriptions", json={"model": "lab/secret", "justification": "research"})
    assert (asked.status_code, asked.get_json()["status"]) == (201, "pending")
    again = owner.post("/api/subscriptions", json={"model": "lab/secret"})
    assert (again.status_code, again.get_json()["id"]) == (200, asked.get_json()["id"])
    waiting = admin.get("/api/subscriptions?status=pending").get_json()
    assert waiting["total"] == 1
    id = waiting["data"][0]["id"]
    assert owner.post(f"/api/subscriptions/{id}/decision", json={"decision": "approve"}).status_code == 403
    approved = admin.post(f"/api/subscriptions/{id}/decision", json={"decision": "approve"})
    assert approved.get_json()["status"] == "active"
    assert [step["status"] for step in approved.get_json()["timeline"]] == ["pending", "active"]

    made = owner.post(
        "/api/keys",
        json={"name": "app", "budget": {"limit": "0.5", "period": "month", "timezone": "Europe/Berlin"}, "rpm": 60},
    )
    assert made.status_code == 201, made.text
    key = made.get_json()
    assert key["budget"]["remaining"] == "0.5"
    with app.app_context():
        name = store.caller(digest(current.secrets().key_pepper, key["key"]))
    record = msgspec.json.decode(str(wire.get(name)), type=directory.CallerRecord)
    assert (record.id, record.username, record.models) == (key["id"], "owner", {"lab/secret": id})
    limits = wire.hgetall(store.scope("key", key["id"]))
    assert limits == {"limit": "500000000", "spec": "month|Europe/Berlin", "rpm": "60"}
    shown = owner.get(f"/api/keys/{key['id']}").get_json()
    assert "key" not in shown
    assert shown["prefix"] == key["key"][:8]
    assert owner.delete(f"/api/keys/{key['id']}").status_code == 204
    assert wire.get(name) is None


def test_everything_of_somebody_elses_is_not_there(app: Flask, people: People) -> None:
    owner, stranger, admin = sign_in(app, "owner"), sign_in(app, "stranger"), sign_in(app, "admin")
    key = owner.post("/api/keys", json={"name": "mine"}).get_json()
    for method in ("get", "delete", "patch"):
        body = {"json": {"name": "yours"}} if method == "patch" else {}
        assert getattr(stranger, method)(f"/api/keys/{key['id']}", **body).status_code == 404
    assert stranger.get(f"/api/budgets/key/{key['id']}").status_code == 404
    assert stranger.get("/api/budgets/user/owner").status_code == 404
    assert stranger.get("/api/keys").get_json()["total"] == 0
    assert admin.get(f"/api/keys/{key['id']}").status_code == 200
    auditor = sign_in(app, "auditor")
    assert auditor.get(f"/api/keys/{key['id']}").status_code == 200
    refused = auditor.delete(f"/api/keys/{key['id']}")
    assert refused.status_code == 403
    assert "admin" in refused.get_json()["error"]["message"]


def test_wrong_role_or_scope_is_403_and_names_it(app: Flask, people: People) -> None:
    refused = sign_in(app, "owner").get("/api/providers")
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (403, "forbidden")
    assert "role admin" in refused.get_json()["error"]["message"]
    narrow = sign_in(app, "admin", scope="inference")
    assert "scope portal" in narrow.get("/api/keys").get_json()["error"]["message"]
    assert "scope admin" in narrow.get("/api/providers").get_json()["error"]["message"]
    assert narrow.get("/users/me").status_code == 200
    writing = sign_in(app, "auditor").post("/api/providers", json={"name": "x", "provider": "echo"})
    assert writing.status_code == 403
    asked = app.test_client().post("/token", data={"username": "owner", "password": PASSWORD, "scope": "admin"})
    assert asked.status_code == 403


def test_a_token_reads_what_its_part_of_a_scope_allows(app: Flask, people: People) -> None:
    reader = sign_in(app, "owner", scope="usage:read")
    assert reader.get("/usage/me/day").status_code == reader.get("/api/requests").status_code == 200
    assert "scope models:read" in reader.get("/api/models").get_json()["error"]["message"]
    assert "scope portal" in reader.get("/api/keys").get_json()["error"]["message"]
    assert sign_in(app, "owner", scope="inference").get("/api/models").status_code == 200
    assert sign_in(app, "owner", scope="portal").get("/usage/me/day").status_code == 200


def test_no_token_or_a_bad_one_is_401(app: Flask, people: People) -> None:
    client = app.test_client()
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic abc"}, {"Authorization": ""}):
        answer = client.get("/api/keys", headers=headers)
        assert answer.status_code == 401
        assert answer.get_json()["error"]["code"] == "unauthenticated"
        assert "Set-Cookie" not in answer.headers
