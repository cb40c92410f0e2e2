"""Admins link accounts, and see what a sign-in would give."""

from __future__ import annotations

import pytest
from flask import Flask

from app.domain import identity
from app.extensions import db
from config import Config, load
from tests.house import People, sign_in

ISSUER = "https://id.example"


@pytest.fixture
def config(home: object, redis_url: str, database_url: str) -> Config:
    return load(
        {
            "CONFIG_STORAGE_DATA_DIR": str(home),
            "CONFIG_DATABASE_URL": database_url,
            "CONFIG_REDIS_URL": redis_url,
            "CONFIG_SERVER_DOORS": "api,public",
            "CONFIG_OIDC_ISSUER": ISSUER,
            "CONFIG_OIDC_CLIENT_ID": "portico",
            "CONFIG_OIDC_TEAM_GROUPS": "{ml: Machine learning}",
        }
    )


def test_an_admin_links_and_unlinks_an_account(app: Flask, people: People) -> None:
    admin, place = sign_in(app, "admin"), "/admin/users/owner/identities"
    answer = admin.post(place, json={"issuer": ISSUER, "subject": "s"})
    assert answer.status_code == 201
    assert (answer.get_json()["issuer"], answer.get_json()["subject"]) == (ISSUER, "s")
    taken = admin.post("/admin/users/stranger/identities", json={"issuer": ISSUER, "subject": "s"})
    assert (taken.status_code, taken.get_json()["error"]["field"]) == (409, "subject")
    assert admin.get(place).get_json()["total"] == 1
    assert admin.delete(f"/admin/users/stranger/identities/{answer.get_json()['id']}").status_code == 404
    assert admin.delete(f"{place}/{answer.get_json()['id']}").status_code == 204
    assert admin.get(place).get_json()["data"] == []


def test_a_preview_tells_what_a_sign_in_would_give_and_changes_nothing(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")

    def preview(**claims: object) -> object:
        return admin.post("/api/oidc/preview", json={"claims": claims}).get_json()

    assert preview(sub="s", preferred_username="ada", groups=["ml"]) == {
        "username": "ada", "account": "new", "role": "user", "teams": {"add": ["Machine learning"], "remove": []},
    }  # fmt: skip
    assert preview(sub="s", preferred_username="Owner")["account"] == "must_link"
    admin.post("/admin/users/owner/identities", json={"issuer": ISSUER, "subject": "s"})
    assert preview(sub="s", preferred_username="ada")["username"] == "owner"
    answer = admin.post("/api/oidc/preview", json={"claims": {}})
    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, "claims.sub")
    db.session.rollback()
    assert identity.find("ada") is None
