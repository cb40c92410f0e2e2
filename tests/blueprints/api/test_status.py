"""The state of the whole for programs: everybody learns whether it works, admins learn how each part is doing."""

from __future__ import annotations

from flask import Flask

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
