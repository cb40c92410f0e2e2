"""Models in the management API: what a picture may count, and a restriction's effect on those who have access."""

from __future__ import annotations

from flask import Flask

from tests.house import People, offer, sign_in


def test_what_a_picture_and_audio_may_count_is_kept_and_taken_back(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    offer(app)
    assert admin.get("/api/models/small").get_json()["image_tokens"] is None
    changed = admin.put("/api/models/small", json={"image_tokens": 1200, "audio_tokens": 1})
    assert (changed.get_json()["image_tokens"], changed.get_json()["audio_tokens"]) == (1200, 1)
    assert admin.put("/api/models/small", json={"description": "x"}).get_json()["image_tokens"] == 1200
    assert admin.put("/api/models/small", json={"image_tokens": None}).get_json()["image_tokens"] is None
    refused = admin.put("/api/models/small", json={"audio_tokens": 0})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "audio_tokens")


def test_a_restriction_by_a_program_turns_access_pending_too(app: Flask, people: People) -> None:
    admin, owner = sign_in(app, "admin"), sign_in(app, "owner")
    offer(app)
    id = owner.post("/api/subscriptions", json={"model": "small"}).get_json()["id"]
    assert admin.put("/api/models/small", json={"restricted": False}).status_code == 200
    assert owner.get(f"/api/subscriptions/{id}").get_json()["status"] == "active"
    assert admin.put("/api/models/small", json={"restricted": True}).status_code == 200
    told = owner.get(f"/api/subscriptions/{id}").get_json()
    assert told["status"] == "pending"
    assert [step["status"] for step in told["timeline"]] == ["active", "pending"]
