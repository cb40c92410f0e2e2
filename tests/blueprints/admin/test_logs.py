"""The page of the log: found by its filters, followed while it grows."""

from __future__ import annotations

from collections.abc import Callable

from app.domain import log_entries
from app.extensions import transaction
from tests.blueprints.portal.conftest import Browser
from tests.house import People

SignedIn = Callable[[str], Browser]


def test_lines_are_shown_filtered_and_followed(people: People, signed_in: SignedIn) -> None:
    base = {"at": "2026-11-21T12:00:00Z", "component": "gateway", "process": "web"}
    lines = [{**base, "level": level, "event": f"<b>{level}", "request_id": "r1"} for level in ("info", "error")]
    transaction(log_entries.keep, [(str(number), line) for number, line in enumerate(lines)])
    auditor = signed_in("auditor")
    rows = auditor.page("/admin/logs").table().rows
    assert [row.cell("Message").texts[0] for row in rows] == ["<b>error", "<b>info"]
    assert len(auditor.page("/admin/logs?level=error", fragment=True).table().rows) == 1
    assert "No line fits" in auditor.page("/admin/logs?q=nothing").empty
    text = auditor.get("/admin/logs?follow=y").text
    assert 'data-refresh="2"' in text and 'data-refresh="2"' not in auditor.get("/admin/logs").text
    assert auditor.get("/admin/logs?cursor=nonsense").status_code == 404
    assert auditor.get("/admin/logs?from=soon&to=9999-99-99&level=loud").status_code == 200
