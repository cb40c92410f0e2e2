"""Settings for programs: listed with where they come from, changed together or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests.house import People, sign_in


def row(answer: Any, key: str) -> dict[str, Any]:
    return next(one for one in answer.get_json()["data"] if one["key"] == key)


def test_a_setting_is_changed_and_acts_on_keys(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    answer = admin.patch("/api/settings", json={"portal.name": "Models", "keys.max_lifetime_days": 10})
    assert answer.status_code == 200
    assert row(answer, "portal.name") == {
        "key": "portal.name", "value": "Models", "default": "Portico", "source": "stored", "editable": True, "secret": False,
        "is_set": True,
    }  # fmt: skip
    assert row(admin.get("/api/settings"), "security.key_pepper")["value"] is None
    owner = sign_in(app, "owner")
    refused = owner.post("/api/keys", json={"name": "app", "expires_at": None})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "expires_at")
    assert owner.post("/api/keys", json={"name": "app"}).get_json()["expires_at"] is not None
    assert owner.get("/api/settings").status_code == 403
    assert sign_in(app, "auditor").patch("/api/settings", json={"portal.name": "x"}).status_code == 403


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"portal.name": ""}, "portal.name"), ({"portal.name": "x" * 101}, "portal.name"), ({"portal.nam": "x"}, "portal.nam"),
        ({"server.port": 80}, "server.port"), ({"keys.max_lifetime_days": "many"}, "keys.max_lifetime_days"),
        ({"gateway.budget_stop_status": 403}, "gateway.budget_stop_status"), ({"log.level": "loud"}, "log.level"),
        ({"gateway.default_model": "nothing"}, "gateway.default_model"),
    ],
)  # fmt: skip
def test_a_bad_change_is_named_by_its_key_and_changes_nothing(
    app: Flask, people: People, change: dict[str, Any], field: str
) -> None:
    admin = sign_in(app, "admin")
    refused = admin.patch("/api/settings", json={"portal.banner": "Internal", **change})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, field)
    assert row(admin.get("/api/settings"), "portal.banner")["source"] == "default"


def test_a_change_of_what_has_changed_since_is_refused(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    version = admin.get("/api/settings").headers["ETag"]
    assert (
        admin.patch("/api/settings", json={"portal.banner": "First"}, headers={"If-Match": version}).status_code == 200
    )
    late = admin.patch("/api/settings", json={"portal.banner": "Second"}, headers={"If-Match": version})
    assert late.status_code == 412
    assert admin.patch("/api/settings", json={"portal.banner": None}).status_code == 200
