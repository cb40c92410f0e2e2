"""The log for programs."""

from __future__ import annotations

from flask import Flask

from app.domain import log_entries
from app.extensions import transaction
from tests.house import People, sign_in


def test_lines_are_listed_newest_first_and_filtered(app: Flask, people: People) -> None:
    base = {"at": "2026-11-21T12:00:00Z", "component": "gateway", "process": "web"}
    lines = [{**base, "level": level, "event": level, "request_id": "r1"} for level in ("info", "warning")]
    transaction(log_entries.keep, [(str(number), line) for number, line in enumerate(lines)])
    auditor = sign_in(app, "auditor")
    row = auditor.get("/api/logs?level=warning&component=gateway&search=R1&from=2026-11-21").get_json()["data"]
    assert row == [
        {
            "id": "1", "time": "2026-11-21T12:00:00Z", "level": "warning", "component": "gateway", "message": "warning",
            "request_id": "r1", "context": {"process": "web"},
        }
    ]  # fmt: skip
    assert len(auditor.get("/api/logs").get_json()["data"]) == 2
    assert auditor.get("/api/logs?level=loud").status_code == auditor.get("/api/logs?component=x").status_code == 422
    assert sign_in(app, "owner").get("/api/logs").status_code == 403
