"""Renewals over the management API: asked for by the person, answered by an admin's decision."""

from __future__ import annotations

from datetime import timedelta

from flask import Flask

from app.clock import now
from tests.house import People, offer, sign_in


def test_a_renewal_is_asked_for_and_answered(app: Flask, visitors: People) -> None:
    admin, owner = sign_in(app, "admin"), sign_in(app, "owner")
    offer(app, "guarded", restricted=True)
    id = owner.post("/api/subscriptions", json={"model": "guarded"}).get_json()["id"]
    path = f"/api/subscriptions/{id}"
    assert owner.post(f"{path}/renewal", json={"reason": "x"}).status_code == 409
    end = (now() + timedelta(days=10)).isoformat()
    admin.post(f"{path}/decision", json={"decision": "approve", "expires_at": end})
    assert owner.post(f"{path}/renewal", json={"reason": " "}).get_json()["error"]["field"] == "reason"
    asked = owner.post(f"{path}/renewal", json={"reason": "The year is long"})
    assert asked.status_code == 200
    assert asked.get_json()["renewal_reason"] == "The year is long"
    assert asked.get_json()["status"] == "active"
    assert owner.post(f"{path}/renewal", json={"reason": "again"}).status_code == 409
    late = admin.post(f"{path}/decision", json={"decision": "approve", "expires_at": end})
    assert (late.status_code, late.get_json()["error"]["field"]) == (422, "expires_at")
    later = (now() + timedelta(days=100)).isoformat()
    renewed = admin.post("/api/subscriptions/decisions", json={"ids": [id], "decision": "approve", "expires_at": later})
    assert renewed.get_json()["data"] == [{"id": id, "ok": True, "status": "active", "error": None}]
    found = owner.get(path).get_json()
    assert found["renewal_asked_at"] is None
    assert found["expires_at"][:10] == later[:10]
    assert [step["status"] for step in found["timeline"]] == ["pending", "active", "renewal-asked", "renewed"]


def test_nobody_asks_for_another_person(app: Flask, visitors: People) -> None:
    owner = sign_in(app, "owner")
    offer(app, "small")
    id = owner.post("/api/subscriptions", json={"model": "small"}).get_json()["id"]
    for who, status in (("stranger", 404), ("auditor", 403), ("admin", 403)):
        answer = sign_in(app, who).post(f"/api/subscriptions/{id}/renewal", json={"reason": "x"})
        assert answer.status_code == status


def test_the_list_is_narrowed_by_each_of_its_filters(app: Flask, visitors: People) -> None:
    admin, owner, stranger = (sign_in(app, name) for name in ("admin", "owner", "stranger"))
    offer(app, "small")
    offer(app, "guarded", restricted=True)
    team = owner.post("/api/teams", json={"name": "Lab"}).get_json()["id"]
    for who, body in ((owner, {"model": "small"}), (owner, {"model": "guarded"}), (stranger, {"model": "small"}),
                      (owner, {"model": "small", "team_id": team})):  # fmt: skip
        assert who.post("/api/subscriptions", json=body).status_code == 201

    def found(**filters: str) -> list[tuple[str, str, bool]]:
        data = admin.get("/api/subscriptions", query_string=filters).get_json()["data"]
        return [(one["model"], one["username"], one["team_id"] is not None) for one in data]

    of_team, of_stranger, pending, own = (
        ("small", "owner", True), ("small", "stranger", False), ("guarded", "owner", False), ("small", "owner", False),
    )  # fmt: skip
    assert found() == [of_team, of_stranger, pending, own]
    assert found(model="guarded") == found(status="pending") == [pending]
    assert found(user="stranger") == [of_stranger]
    assert found(team_id=team) == [of_team]
    assert found(model="small", user="owner", status="active") == [of_team, own]
    assert found(model="none") == found(user="nobody") == found(team_id="none") == []
