"""The state of the whole for programs: everybody learns whether it works, admins learn how each part is doing."""

from __future__ import annotations

import redis
from flask import Flask

from app.runtime import heartbeats
from tests.house import People, sign_in


def test_the_state_of_the_parts_is_told_to_admins_alone(app: Flask, visitors: People) -> None:
    told = sign_in(app, "auditor").get("/api/status").get_json()
    assert told["meter"] == {"open": False, "counting": False}
    assert any("The meter is closed" in concern for concern in told["concerns"])
    assert {one["name"] for one in told["stores"]} == {"Database", "Redis"}
    assert (told["dead_letters"], told["level"], "Portico" in told["versions"]) == (0, "danger", True)
    told = sign_in(app, "owner").get("/api/status").get_json()
    assert (told["status"], told["concerns"], told["stores"], told["drainer"], told["dead_letters"]) == (
        "ok", [], [], None, None,
    )  # fmt: skip
    assert (told["processes"], told["times"]) == ([], None)


def test_what_does_not_run_is_named(app: Flask, visitors: People, wire: redis.Redis) -> None:
    heartbeats.beat(wire, "drainer")
    told = sign_in(app, "auditor").get("/api/status").get_json()
    assert told["processes"] == [
        {"name": "drainer", "running": True},
        {"name": "worker", "running": False},
        {"name": "clock", "running": False},
    ]
    assert "The clock is not running: periodic jobs do not start." in told["concerns"]
    assert told["times"] == {"difference_ms": 0, "step_ms": None, "stepped_at": None}
