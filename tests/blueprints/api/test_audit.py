"""The audit log for programs: found by an action or all of a noun, by address, and by a text."""

from __future__ import annotations

from flask import Flask

from app.domain import audit
from app.extensions import db, transaction
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


def test_verification_names_the_first_entry_that_does_not_fit(app: Flask, people: People) -> None:
    entries = [transaction(audit.record, people.admin, "thing.act", "thing", str(number)) for number in range(3)]
    auditor = sign_in(app, "auditor")
    found = auditor.get("/api/audit/verification").get_json()
    assert (found["result"], found["first_broken"]) == ("intact", None)
    db.session.delete(entries[1])
    db.session.commit()
    found = auditor.get("/api/audit/verification").get_json()
    broken = {"id": entries[2].id, "position": found["checked"] + 1, "reason": "removed"}
    assert (found["result"], found["first_broken"]) == ("broken", broken)


def test_taking_out_usage_as_a_file_is_recorded(app: Flask, people: People) -> None:
    assert sign_in(app, "auditor").get("/api/chargeback/file?from=2026-11").status_code == 200
    entry = db.session.scalars(audit.entries(action="usage.export")).one()
    assert (entry.actor, entry.detail) == ("auditor", {"file": "chargeback-focus", "format": "csv", "from": "2026-11"})
