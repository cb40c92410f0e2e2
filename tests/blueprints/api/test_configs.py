"""Saved configurations for programs: saved, listed, compared, exported, imported, activated."""

from __future__ import annotations

import json

from flask import Flask

from app.domain import audit, providers
from app.extensions import db, transaction
from app.workflows import config_changes
from tests.house import People, Program, make_model, sign_in

SECRET = "sk-canary-of-a-provider-1234"


def admin(app: Flask, people: People) -> Program:
    """The admin's program, where there is a model, and the first configuration is saved."""

    def work() -> None:
        config = {"base_url": "https://api.example.com/v1", "api_key": SECRET}
        providers.create(by=people.admin, name="zeta", kind="openai", config=config)
        make_model(people.admin, "small")
        config_changes.ensure_first()

    transaction(work)
    return sign_in(app, "admin")


def test_a_configuration_is_saved_renamed_and_deleted(app: Flask, people: People) -> None:
    program = admin(app, people)
    made = program.post("/api/configs", json={"name": "Summer", "description": "Cheap."})
    assert made.status_code == 201
    assert made.get_json().keys() == {"id", "name", "description", "is_default", "created_at", "updated_at"}
    id = made.get_json()["id"]
    assert program.post("/api/configs", json={"name": "SUMMER"}).status_code == 409
    assert program.post("/api/configs", json={"name": "x", "is_default": True}).status_code == 422
    rows = program.get("/api/configs").get_json()["data"]
    assert [(row["name"], row["is_default"]) for row in rows] == [("Summer", False), ("Initial", True)]
    answer = program.get(f"/api/configs/{id}")
    changed = program.put(f"/api/configs/{id}", json={"name": "Autumn"}, headers={"If-Match": answer.headers["ETag"]})
    assert (changed.status_code, changed.get_json()["name"]) == (200, "Autumn")
    stale = program.put(f"/api/configs/{id}", json={"name": "Winter"}, headers={"If-Match": answer.headers["ETag"]})
    assert stale.status_code == 412
    assert program.put(f"/api/configs/{id}", json=answer.get_json()).status_code == 200, "as GET returns it"
    assert program.delete(f"/api/configs/{id}").status_code == 204
    assert program.delete(f"/api/configs/{rows[1]['id']}").status_code == 409


def test_an_export_is_the_same_bytes_each_time_and_can_be_imported(app: Flask, people: People) -> None:
    program = admin(app, people)
    first, second = (program.get("/api/configs/export").data for _ in range(2))
    assert first == second and SECRET.encode() not in first
    document = json.loads(first)
    assert list(document) == ["portico", "providers", "models", "endpoints", "routing"]
    initial = program.get("/api/configs").get_json()["data"][0]["id"]
    assert program.get(f"/api/configs/{initial}").get_json()["config"] == document
    assert program.get(f"/api/configs/{initial}/export").data == first
    assert len(db.session.scalars(audit.entries(action="config.export")).all()) == 3
    same = program.post("/api/configs/import", json={"config": document}).get_json()
    assert (same["changes"], same["previous_id"]) == ([], None)
    document["models"][0]["description"] = "Small."
    tried = program.post("/api/configs/import", json={"config": document, "dry_run": True}).get_json()
    assert (tried["dry_run"], tried["counts"]) == (True, {"create": 0, "update": 1, "delete": 0})
    done = program.post("/api/configs/import", json={"config": document}).get_json()
    assert done["changes"] == [
        {
            "kind": "model", "name": "small", "act": "update",
            "fields": [{"path": "description", "before": "", "after": "Small."}],
        }
    ]  # fmt: skip
    assert done["changes"] == tried["changes"] and done["previous_id"]


def test_a_document_that_does_not_fit_is_refused_with_its_place(app: Flask, people: People) -> None:
    program = admin(app, people)
    for document, field in (
        ({"portico": 9}, "config.portico"),
        ({"portico": 1, "models": [{"name": "m", "prize": {}}]}, "config.models[0].prize"),
    ):
        answer = program.post("/api/configs/import", json={"config": document})
        assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, field)


def test_activating_leads_back(app: Flask, people: People) -> None:
    program = admin(app, people)
    initial = program.get("/api/configs").get_json()["data"][0]["id"]
    transaction(make_model, people.admin, "other")
    compared = program.get(f"/api/configs/{initial}/diff").get_json()
    assert (compared["from"], compared["to"], compared["counts"]["update"]) == ("current", initial, 1)
    done = program.post(f"/api/configs/{initial}/activate").get_json()
    assert done["changes"] == compared["changes"]
    previous = done["previous_id"]
    reverse = program.get(f"/api/configs/{previous}/diff?against={initial}").get_json()
    assert [(one["act"], one["name"]) for one in reverse["changes"]] == [("create", "other")]
    assert program.post(f"/api/configs/{previous}/activate").status_code == 200
    assert program.get("/api/models/other").get_json()["status"] == "active"
    assert program.get(f"/api/configs/{initial}/diff?against=none").status_code == 404


def test_a_configuration_of_a_large_organisation_can_be_imported(app: Flask, people: People) -> None:
    program = admin(app, people)
    models = [{"name": f"m{number}", "features": [f"f{n}" for n in range(45)]} for number in range(500)]
    answer = program.post("/api/configs/import", json={"config": {"portico": 1, "models": models[:1]}, "dry_run": True})
    assert answer.status_code == 200
    refused = program.post("/api/configs/import", json={"config": {"portico": 2, "models": models}})
    assert refused.status_code == 422, "its size is no reason"
