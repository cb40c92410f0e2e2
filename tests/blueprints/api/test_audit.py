"""The audit log for programs: found by an action or all of a noun, by address, and by a text."""

from __future__ import annotations

from flask import Flask

from app.domain import audit
from app.extensions import transaction
from tests.house import People, sign_in


def test_the_log_is_found_by_action_address_and_text(app: Flask, people: People) -> None:
    for action, name in (("thing.act", "Éclair"), ("thing.undo", "100%"), ("thingy.act", "other")):
        transaction(audit.record, people.admin, action, "thing", f"id-{name}", name=name)
    auditor = sign_in(app, "auditor")

    def found(query: str) -> list[str]:
        return [entry["object"]["name"] for entry in auditor.get(f"/api/audit?{query}").get_json()["data"]]

    assert found("action=thing.*") == ["100%", "Éclair"]
    assert found("action=thing.act") == ["Éclair"]
    assert found("action=%25.*") == [], "a sign of SQL is a letter like any other"
    assert found("object=thing&search=ACT") == ["other", "Éclair"]
    assert found("object=thing&search=0%25") == ["100%"]
    assert found("object=thing&address=192.0.2.1") == []
    assert sign_in(app, "owner").get("/api/audit?action=thing.*").status_code == 403
