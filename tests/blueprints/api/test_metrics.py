"""`GET /api/metrics` and the requests under their former name."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.house import Program, sign_in
from tests.things import Things, things  # noqa: F401


@pytest.fixture
def programs(app: Flask, things: Things) -> dict[str, Program]:
    return {name: sign_in(app, name) for name in ("admin", "auditor")}


def test_admins_read_a_summary_whose_parts_add_up(programs: dict[str, Program]) -> None:
    found = programs["auditor"].get("/api/metrics?start=2026-01-01T00:00:00Z&end=2999-01-01T00:00:00Z").get_json()
    requests = found["requests"]
    assert requests["total"]["total"] == requests["streamed"]["total"] + requests["non_streamed"]["total"] > 0
    assert sum(found["model_distribution"].values()) == requests["total"]["total"]
    refused = programs["admin"].get("/api/metrics?start=2026-02-01T00:00:00Z&end=2026-01-01T00:00:00Z")
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "end")
    assert programs["admin"].get("/api/metrics?start=yesterday").status_code == 422


def test_completion_requests_are_requests(programs: dict[str, Program]) -> None:
    asked = "start=2026-01-01T00:00:00Z&end=2999-01-01T00:00:00Z"
    old = programs["admin"].get(f"/api/completion_requests?{asked}").get_json()
    new = programs["admin"].get(f"/api/requests?{asked.replace('start', 'from').replace('end', 'to')}").get_json()
    assert old["data"] == new["data"] != []
    assert programs["admin"].get("/api/completion_requests?start=2999-01-01T00:00:00Z").get_json()["data"] == []
