"""People, budgets, endpoints, sessions and the state of the whole, in the management API."""

import pytest
import redis
from flask import Flask

from app import store
from app.domain import subscriptions
from app.extensions import db
from app.web import formats, lists
from tests.house import PASSWORD, People, offer, sign_in


def test_admins_make_change_and_remove_people(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    made = admin.post("/admin/users", json={"username": "Ada", "email": "ada@example.org", "password": PASSWORD})
    assert made.status_code == 201, made.text
    assert made.get_json()["role"] == "user"
    assert PASSWORD not in made.text
    assert admin.post("/admin/users", json={"username": "aDA", "password": PASSWORD}).status_code == 409
    short = admin.post("/admin/users", json={"username": "bob", "password": "short"})
    assert (short.status_code, short.get_json()["error"]["field"]) == (422, "password")
    changed = admin.put("/admin/users/ada", json={"role": "admin-readonly", "rpm": 5})
    assert changed.get_json()["scopes"] == ["inference", "portal", "admin"]
    assert made.get_json()["groups"] == []
    grouped = admin.put("/admin/users/ada", json={"groups": ["lab", " lab ", "staff"]})
    assert grouped.get_json()["groups"] == ["lab", "staff"]
    assert admin.put("/admin/users/ada", json={"rpm": 6}).get_json()["groups"] == ["lab", "staff"]
    assert admin.put("/admin/users/ada", json={"groups": ["<b>"]}).get_json()["error"]["field"] == "groups"
    assert admin.put("/admin/users/ada", json={"role": "emperor"}).get_json()["error"]["field"] == "role"
    assert admin.put("/admin/users/ada", json={"scopes": ["fly"]}).get_json()["error"]["field"] == "scopes"
    assert admin.delete("/admin/users/ADA").status_code == 204
    assert admin.get("/admin/users/ada").status_code == 404


def test_the_last_admin_stays(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    assert admin.delete("/admin/users/admin").status_code == 409
    assert admin.put("/admin/users/admin", json={"role": "user"}).status_code == 409
    assert admin.put("/admin/users/admin", json={"disabled": True}).status_code == 409
    assert admin.get("/users/me").get_json()["role"] == "admin"


def test_a_removed_person_leaves_nothing_that_works(app: Flask, people: People, wire: redis.Redis) -> None:
    admin, owner = sign_in(app, "admin"), sign_in(app, "owner")
    offer(app)
    owner.post("/api/subscriptions", json={"model": "small"})
    owner.post("/api/keys", json={"name": "a", "budget": {"limit": "1"}})
    assert len(list(wire.scan_iter(match="*caller:*"))) == 3  # two tokens and a key
    assert admin.delete("/admin/users/owner").status_code == 204
    assert len(list(wire.scan_iter(match="*caller:*"))) == 1
    assert owner.get("/users/me").status_code == 401


def test_budgets_of_every_scope_are_set_read_and_cleared(app: Flask, people: People, wire: redis.Redis) -> None:
    admin, owner = sign_in(app, "admin"), sign_in(app, "owner")
    offer(app)
    subscription = owner.post("/api/subscriptions", json={"model": "small"}).get_json()["id"]
    key = owner.post("/api/keys", json={"name": "a"}).get_json()["id"]
    wire.hset(store.spent("user", people.owner.id, "total"), mapping={"spent": 250_000_000, "held": 50_000_000})
    for path, kind, id in (
        ("organisation/default", "organisation", "default"),
        ("user/owner", "user", people.owner.id),
        (f"subscription/{subscription}", "subscription", subscription),
        (f"key/{key}", "key", key),
    ):
        empty = admin.get(f"/api/budgets/{path}").get_json()
        assert (empty["limit"], empty["remaining"]) == (None, None)
        put = admin.put(f"/api/budgets/{path}", json={"limit": "1.5", "period": "total"})
        assert put.status_code == 200, put.text
        assert wire.hmget(store.scope(kind, id), "limit", "spec") == ["1500000000", "total|UTC"]
        refused = owner.put(f"/api/budgets/{path}", json={"limit": "9", "period": "total"})
        assert refused.status_code == (200 if kind == "key" else 403)
    mine = owner.get("/api/budgets/user/OWNER").get_json()
    assert (mine["spent"], mine["reserved"], mine["remaining"], mine["resets_at"]) == ("0.25", "0.05", "1.2", None)
    assert admin.get("/api/budgets").get_json()["total"] == 4
    assert owner.get("/api/budgets").get_json()["total"] == 3
    assert admin.delete("/api/budgets/user/owner").status_code == 204
    assert wire.hget(store.scope("user", people.owner.id), "limit") is None
    for body, field in (
        ({"limit": "-1", "period": "day"}, "limit"),
        ({"limit": "1", "period": "fortnight"}, "period"),
        ({"limit": "1", "period": "day", "timezone": "Mars/Base"}, "timezone"),
    ):
        refused = admin.put("/api/budgets/organisation/default", json=body)
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, field)


def test_limits_of_a_key_come_and_go_and_bucket_levels_stay(app: Flask, people: People, wire: redis.Redis) -> None:
    owner = sign_in(app, "owner")
    key = owner.post("/api/keys", json={"name": "a", "rpm": 5, "tpm": 100, "max_parallel": 2}).get_json()
    name = store.scope("key", key["id"])
    wire.hset(name, "rpm_level", "3.5")
    changed = owner.patch(f"/api/keys/{key['id']}", json={"rpm": None, "tpm": 200, "budget": {"limit": "2"}})
    assert changed.status_code == 200, changed.text
    assert wire.hgetall(name) == {
        "spec": "month|UTC",
        "limit": "2000000000",
        "tpm": "200",
        "parallel": "2",
        "rpm_level": "3.5",
    }
    assert owner.patch(f"/api/keys/{key['id']}", json={"budget": None}).get_json()["budget"] is None
    assert owner.patch(f"/api/keys/{key['id']}", json={"rpm": 0}).get_json()["error"]["field"] == "rpm"
    assert owner.patch(f"/api/keys/{key['id']}", json={"person_id": "x"}).get_json()["error"]["field"] == "person_id"


def test_a_rotated_key_keeps_its_id_and_its_old_text_for_the_overlap(
    app: Flask, people: People, wire: redis.Redis
) -> None:
    owner = sign_in(app, "owner")
    key = owner.post("/api/keys", json={"name": "a"}).get_json()
    rotated = owner.post(f"/api/keys/{key['id']}/rotation", json={"overlap_s": 60})
    assert (rotated.status_code, rotated.get_json()["id"]) == (201, key["id"])
    assert rotated.get_json()["key"] != key["key"]
    ttls = sorted(wire.ttl(name) for name in wire.scan_iter(match="*caller:*"))
    assert 0 < ttls[0] <= 60 < ttls[1]  # the new text ends with the key
    assert owner.post(f"/api/keys/{key['id']}/rotation", json={}).status_code == 201
    assert sum(1 for _ in wire.scan_iter(match="*caller:*")) == 2  # the newest text and the access token


def test_endpoints_are_switched_and_narrowed(app: Flask, people: People, wire: redis.Redis) -> None:
    admin = sign_in(app, "admin")
    rows = admin.get("/api/endpoints").get_json()["data"]
    row = next(row for row in rows if row["path"] == "/v1/embeddings")
    assert (row["active"], row["mapping"]) == (True, {"providers": []})
    off = admin.put(f"/api/endpoints/{row['id']}", json={"active": False})
    assert off.get_json()["active"] is False
    assert '{"path":"/v1/embeddings","active":false}' in str(wire.get(store.DIRECTORY))
    wrong = admin.put(f"/api/endpoints/{row['id']}", json={"mapping": {"providers": ["x"]}})
    assert (wrong.status_code, wrong.get_json()["error"]["field"]) == (422, "mapping.providers")


def test_many_are_decided_at_once_with_a_result_each(app: Flask, people: People) -> None:
    admin, owner = sign_in(app, "admin"), sign_in(app, "owner")

    for name in ("a", "b"):
        offer(app, name, restricted=True)
    ids = [owner.post("/api/subscriptions", json={"model": name}).get_json()["id"] for name in ("a", "b")]
    admin.post(f"/api/subscriptions/{ids[0]}/decision", json={"decision": "approve"})
    answer = admin.post("/api/subscriptions/decisions", json={"ids": [*ids, "x"], "decision": "deny", "reason": "no"})
    results = answer.get_json()["data"]
    assert [row["ok"] for row in results] == [False, True, False]
    assert [row["error"] and row["error"]["code"] for row in results] == ["conflict", None, "not_found"]
    reason = admin.post(f"/api/subscriptions/{ids[1]}/decision", json={"decision": "deny"})
    assert (reason.status_code, reason.get_json()["error"]["field"]) == (422, "reason")
    again = owner.post("/api/subscriptions", json={"model": "b"})
    assert again.status_code == 201
    assert again.get_json()["id"] != ids[1]
    with app.app_context():
        assert db.session.scalar(subscriptions.awaiting_decision_count()) == 1


def test_a_browser_session_reads_freely_and_writes_with_its_csrf_token(app: Flask, visitors: People) -> None:
    client = app.test_client()
    form = client.post("/api/auth/login", data={"username": "owner", "password": PASSWORD})
    assert form.status_code == 400
    begun = client.post("/api/auth/login", json={"username": "owner", "password": PASSWORD})
    assert begun.status_code == 200
    assert "HttpOnly" in begun.headers["Set-Cookie"]
    assert "SameSite=Lax" in begun.headers["Set-Cookie"]
    assert client.get("/api/auth/me").get_json()["username"] == "owner"
    assert client.post("/api/keys", json={"name": "a"}).status_code == 403
    headers = {"X-CSRFToken": begun.get_json()["csrf_token"]}
    assert client.post("/api/keys", json={"name": "a"}, headers=headers).status_code == 201
    assert client.post("/api/auth/logout", headers=headers).status_code == 204
    assert client.get("/api/auth/me").status_code == 401


def test_the_state_of_the_whole_is_told(app: Flask, people: People) -> None:
    owner = sign_in(app, "owner")
    assert owner.get("/api/status/health").get_json()["status"] == "ok"
    assert owner.get("/api/status").get_json()["usage_waiting"] == 0


def test_the_audit_log_tells_who_did_what(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    admin.put("/admin/users/owner", json={"rpm": 7})
    log = admin.get("/api/audit?action=person.update").get_json()["data"][0]
    assert (log["actor"], log["object"]["name"], log["address"]) == ("admin", "owner", "127.0.0.1")
    assert log["detail"] == {"before": {"rpm": None}, "after": {"rpm": 7}}
    first = admin.get("/api/audit?limit=2").get_json()
    second = admin.get(f"/api/audit?limit=2&cursor={first['next_cursor']}").get_json()
    assert first["data"][1]["id"] > second["data"][0]["id"]
    assert admin.get("/api/audit?to=2020-01-01T00:00:00Z").get_json()["total"] == 0
    wrong = admin.get("/api/audit?cursor=zzz")
    assert (wrong.status_code, wrong.get_json()["error"]["field"]) == (422, "cursor")
    assert sign_in(app, "owner").get("/api/audit").status_code == 403


def test_pages_reach_what_is_counted_and_cursors_the_end(
    app: Flask, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = sign_in(app, "admin")
    names = [admin.post("/api/keys", json={"name": f"key {number}"}).get_json()["name"] for number in range(7)]
    for module in (lists, formats):
        monkeypatch.setattr(module, "MOST_COUNTED", 4)
    first = admin.get("/api/keys?limit=2&page=2").get_json()
    assert (first["total"], [key["name"] for key in first["data"]]) == (None, names[::-1][2:4])
    seen, cursor = [], first["next_cursor"]
    while cursor:
        body = admin.get(f"/api/keys?limit=2&cursor={cursor}").get_json()
        seen += [key["name"] for key in body["data"]]
        cursor = body["next_cursor"]
    assert seen == names[::-1][4:]
    beyond = admin.get("/api/keys?limit=2&page=3")
    assert (beyond.status_code, beyond.get_json()["error"]["field"]) == (422, "page")
    assert "cursor" in beyond.get_json()["error"]["message"]
    short = admin.get("/admin/tokens?page=9").get_json()
    assert (short["data"], short["total"]) == ([], 0)
