"""Every sign-in leaves an audit entry, a count and, when it is refused, a line of the log; no door leaves one out."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask
from prometheus_client import REGISTRY

from tests.house import PASSWORD, People, sign_in

WRONG = "not the right password"


def by_token(app: Flask, username: str, password: str) -> int:
    return app.test_client().post("/token", data={"username": username, "password": password}).status_code


def by_login(app: Flask, username: str, password: str) -> int:
    return app.test_client().post("/api/auth/login", json={"username": username, "password": password}).status_code


def by_form(app: Flask, username: str, password: str) -> int:
    app.config["WTF_CSRF_ENABLED"] = False
    return app.test_client().post("/sign-in", data={"username": username, "password": password}).status_code


DOORS = [(by_token, "token", 401, 200), (by_login, "password", 401, 200), (by_form, "password", 422, 303)]


def entries(app: Flask, action: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sign_in(app, "admin").get(f"/api/audit?action={action}").get_json()["data"]
    return [one for one in found if one["actor"] != "admin"]


def counted(method: str, outcome: str) -> float:
    return REGISTRY.get_sample_value("portico_sign_ins_total", {"method": method, "outcome": outcome}) or 0.0


@pytest.mark.parametrize(("door", "method", "refused", "accepted"), DOORS)
def test_a_refused_sign_in_is_written_down(
    app: Flask, visitors: People, caplog: pytest.LogCaptureFixture, door: Any, method: str, refused: int, accepted: int
) -> None:
    before = counted(method, "refused")
    with caplog.at_level(logging.WARNING):
        assert door(app, "owner", WRONG) == refused
    (entry,) = entries(app, "sign_in.refuse")
    assert entry["object"] == {"kind": "person", "id": visitors.owner.id, "name": "owner"}
    assert entry["detail"] == {"method": method, "reason": "wrong_password"}
    assert entry["address"] == "127.0.0.1"
    assert counted(method, "refused") == before + 1
    assert "a sign-in was refused: wrong_password" in caplog.text and WRONG not in caplog.text


@pytest.mark.parametrize(("door", "method", "refused", "accepted"), DOORS)
def test_an_accepted_sign_in_is_written_down(
    app: Flask, visitors: People, door: Any, method: str, refused: int, accepted: int
) -> None:
    before = counted(method, "accepted")
    assert door(app, "owner", PASSWORD) == accepted
    assert counted(method, "accepted") == before + 1
    (entry,) = entries(app, "sign_in.accept")
    assert (entry["actor"], entry["object"]["id"], entry["detail"]) == ("owner", visitors.owner.id, {"method": method})


def test_a_wrong_present_password_is_a_refused_sign_in_too(app: Flask, visitors: People) -> None:
    body = {"current_password": WRONG, "new_password": "another long password"}
    assert sign_in(app, "owner").post("/change-password", json=body).status_code == 401
    assert [one["detail"]["reason"] for one in entries(app, "sign_in.refuse")] == ["wrong_password"]


def test_a_name_that_is_nobodys_is_not_kept_for_it_may_be_a_password(app: Flask, visitors: People) -> None:
    assert by_token(app, "correct-horse-battery", "x") == 401
    (entry,) = entries(app, "sign_in.refuse")
    assert entry["detail"]["reason"] == "unknown_person" and len(entry["detail"]["mark"]) == 8
    assert "horse" not in str(entry)


def test_who_may_not_enter_any_more_is_told_apart_in_the_log_alone(app: Flask, visitors: People) -> None:
    admin = sign_in(app, "admin")
    admin.put("/admin/users/owner", json={"disabled": True})
    assert by_token(app, "owner", PASSWORD) == 401
    assert [one["detail"]["reason"] for one in entries(app, "sign_in.refuse")] == ["disabled"]


def test_a_flood_of_attempts_leaves_few_entries(app: Flask, visitors: People) -> None:
    for attempt in range(40):
        assert by_token(app, "owner", WRONG) == (401 if attempt < 10 else 429)
    reasons = [one["detail"]["reason"] for one in entries(app, "sign_in.refuse")]
    assert (reasons.count("wrong_password"), reasons.count("throttled")) == (10, 1)
