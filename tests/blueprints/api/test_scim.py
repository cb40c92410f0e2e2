"""SCIM over HTTP, as a directory speaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from app.domain import identity, teams
from app.domain.audit import AuditEntry
from app.extensions import db, transaction
from config import Config, load
from tests.house import People, Program, make_team, sign_in

TOKEN = "a token of at least thirty-two characters"


@pytest.fixture
def config(home: Path, redis_url: str, database_url: str) -> Config:
    return load(
        {
            "CONFIG_STORAGE_DATA_DIR": str(home),
            "CONFIG_DATABASE_URL": database_url,
            "CONFIG_REDIS_URL": redis_url,
            "CONFIG_SERVER_DOORS": "api,public",
            "CONFIG_SCIM_TOKEN": TOKEN,
        }
    )


@pytest.fixture
def directory(app: Flask) -> Program:
    return Program(app.test_client(use_cookies=False), TOKEN)


def make(directory: Program, username: str = "ada", **values: Any) -> dict[str, Any]:
    answer = directory.post("/scim/v2/Users", json={"schemas": [], "userName": username, **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


def patch(directory: Program, place: str, *operations: dict[str, Any]) -> Any:
    return directory.patch(f"/scim/v2/{place}", json={"schemas": [], "Operations": list(operations)})


def test_a_person_is_made_found_changed_and_deleted(app: Flask, people: People, directory: Program) -> None:
    made = make(
        directory,
        externalId="e-1",
        name={"givenName": "Ada", "familyName": "Lovelace"},
        emails=[{"value": "ada@example.org", "type": "work", "primary": True}],
        active=True,
        title="Countess",
    )
    assert made["meta"]["location"].endswith(f"/scim/v2/Users/{made['id']}")
    assert (made["userName"], made["externalId"], made["active"], made["groups"]) == ("ada", "e-1", True, [])
    for text in ('userName eq "ADA"', 'externalId eq "e-1"', 'emails.value eq "Ada@example.org" and userName eq "ada"'):
        found = directory.get("/scim/v2/Users", query_string={"filter": text})
        assert found.mimetype == "application/scim+json"
        assert [one["id"] for one in found.get_json()["Resources"]] == [made["id"]], text
    place = f"Users/{made['id']}"
    changed = patch(directory, place, {"op": "Replace", "path": "name.givenName", "value": "Augusta"}).get_json()
    assert changed["name"] == {"givenName": "Augusta", "familyName": "Lovelace"}
    put = directory.put(f"/scim/v2/{place}", json={"userName": "lovelace", "externalId": "e-1", "active": True})
    assert (put.status_code, put.get_json()["userName"]) == (200, "lovelace")
    assert directory.delete(f"/scim/v2/{place}").status_code == 204
    assert directory.get(f"/scim/v2/{place}").status_code == 404
    actors = select(AuditEntry.actor).where(AuditEntry.action.startswith("person."), AuditEntry.object_id == made["id"])
    assert set(db.session.scalars(actors)) == {"scim"}


def test_a_name_or_external_id_is_taken_once_by_a_local_account_too(people: People, directory: Program) -> None:
    make(directory, externalId="e-1")
    for body in ({"userName": "ADA"}, {"userName": "other", "externalId": "e-1"}, {"userName": "owner"}):
        answer = directory.post("/scim/v2/Users", json=body)
        assert (answer.status_code, answer.get_json()["scimType"]) == (409, "uniqueness")
        assert answer.get_json()["status"] == "409"


def test_lists_are_paged(people: People, directory: Program) -> None:
    for name in ("one", "two", "three"):
        make(directory, name)
    found = directory.get("/scim/v2/Users?startIndex=2&count=2").get_json()
    assert (found["totalResults"], found["startIndex"], found["itemsPerPage"]) == (7, 2, 2)
    everyone = directory.get("/scim/v2/Users?startIndex=0&count=1000").get_json()
    assert len(everyone["Resources"]) == 7
    assert [one["id"] for one in found["Resources"]] == [one["id"] for one in everyone["Resources"]][1:3]
    assert directory.get("/scim/v2/Users?count=0").get_json()["Resources"] == []
    assert directory.get("/scim/v2/Users?count=many").status_code == 400
    wrong = directory.get("/scim/v2/Users", query_string={"filter": 'userName co "a"'})
    assert (wrong.status_code, wrong.get_json()["scimType"]) == (400, "invalidFilter")
    assert directory.get("/scim/v2/Users", query_string={"filter": 'userName eq "a\\u0000"'}).status_code == 400


@pytest.mark.parametrize(
    "off", [{"op": "Replace", "path": "active", "value": "False"}, {"op": "replace", "value": {"active": False}}]
)
def test_who_is_deactivated_is_out_and_comes_back_without_tokens(
    app: Flask, people: People, directory: Program, off: dict[str, Any]
) -> None:
    place = f"Users/{people.owner.id}"
    owner = sign_in(app, "owner")
    assert owner.get("/users/me").status_code == 200
    assert patch(directory, place, off).get_json()["active"] is False
    assert owner.get("/users/me").status_code == 401
    assert patch(directory, place, {"op": "replace", "path": "active", "value": True}).get_json()["active"] is True
    assert owner.get("/users/me").status_code == 401


def test_the_last_admin_stays(people: People, directory: Program) -> None:
    assert (
        patch(directory, f"Users/{people.admin.id}", {"op": "replace", "path": "active", "value": False}).status_code
        == 409
    )
    assert directory.delete(f"/scim/v2/Users/{people.admin.id}").status_code == 409


def test_groups_are_teams(people: People, directory: Program) -> None:
    team_id = transaction(lambda: make_team().id)
    shown = directory.get(f"/scim/v2/Groups/{team_id}").get_json()
    assert (shown["displayName"], len(shown["members"])) == ("Research", 2)
    member = {"value": people.owner.id}
    made = directory.post("/scim/v2/Groups", json={"displayName": "ML", "externalId": "g-1", "members": [member]})
    assert made.status_code == 201
    place = f"Groups/{made.get_json()['id']}"
    assert [one["value"] for one in made.get_json()["members"]] == [people.owner.id]
    assert directory.get(f"/scim/v2/Users/{people.owner.id}").get_json()["groups"][0]["display"] == "ML"
    more = {"op": "Add", "path": "members", "value": [{"value": people.stranger.id}]}
    assert len(patch(directory, place, more).get_json()["members"]) == 2
    less = {"op": "Remove", "path": f'members[value eq "{people.owner.id}"]'}
    assert len(patch(directory, place, less).get_json()["members"]) == 1
    found = directory.get(
        "/scim/v2/Groups",
        query_string={"filter": f'displayName eq "ml" and members.value eq "{people.stranger.id}"',
                      "excludedAttributes": "members"},
    ).get_json()  # fmt: skip
    assert [("members" in one, one["externalId"]) for one in found["Resources"]] == [(False, "g-1")]
    nobody = patch(directory, place, {"op": "add", "path": "members", "value": [{"value": "nobody"}]})
    assert (nobody.status_code, nobody.get_json()["scimType"]) == (400, "invalidValue")
    assert directory.put(f"/scim/v2/{place}", json={"displayName": "ML 2"}).get_json()["members"] == []
    again = directory.post("/scim/v2/Groups", json={"displayName": "ml 2"})
    assert (again.status_code, again.get_json()["scimType"]) == (409, "uniqueness")
    assert directory.delete(f"/scim/v2/{place}").status_code == 204
    assert directory.get(f"/scim/v2/{place}").status_code == 404


def test_only_the_client_with_the_token_comes_in(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    for program in (Program(app.test_client(), None), Program(app.test_client(), "wrong"), admin):
        answer = program.get("/scim/v2/Users")
        assert (answer.status_code, answer.get_json()["status"]) == (401, "401")
        assert answer.get_json()["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    reasons = select(AuditEntry.detail).where(AuditEntry.action == "sign_in.refuse")
    assert {one["method"] for one in db.session.scalars(reasons)} == {"scim"}
    assert Program(app.test_client(), TOKEN).get("/api/keys").status_code == 401


def test_what_scim_says_of_itself(directory: Program, app: Flask) -> None:
    for path in ("ServiceProviderConfig", "ResourceTypes", "Schemas"):
        assert directory.get(f"/scim/v2/{path}").status_code == 200
    for path in ("", "Nothing", "Users/none", "Groups/none", "Me"):
        answer = directory.get(f"/scim/v2/{path}")
        assert (answer.status_code, answer.get_json()["status"]) == (404, "404")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"x"', b'{"userName": 5}', b'{"userName": "a b"}', b"{}", b'{"userName":"\\u0000"}']
)
def test_a_bad_body_is_a_400(people: People, directory: Program, body: bytes) -> None:
    answer = directory.post("/scim/v2/Users", data=body, content_type="application/scim+json")
    assert answer.status_code == 400, answer.text
    assert answer.get_json()["scimType"] in ("invalidSyntax", "invalidValue")


def test_a_team_that_scim_made_has_no_owner_and_admins_act_for_it(
    app: Flask, people: People, directory: Program
) -> None:
    made = directory.post("/scim/v2/Groups", json={"displayName": "Ownerless"}).get_json()
    answer = sign_in(app, "admin").put(f"/api/teams/{made['id']}/members/owner", json={"role": "owner"})
    assert answer.status_code == 200
    assert [one.username for one in teams.owners_of(db.session.get(teams.Team, made["id"]))] == ["owner"]


class TestWithoutAToken:
    @pytest.fixture
    def config(self, home: Path, redis_url: str, database_url: str) -> Config:
        return load(
            {
                "CONFIG_STORAGE_DATA_DIR": str(home),
                "CONFIG_DATABASE_URL": database_url,
                "CONFIG_REDIS_URL": redis_url,
                "CONFIG_SERVER_DOORS": "api,public",
            }
        )

    def test_there_is_no_scim(self, people: People, directory: Program) -> None:
        for path in ("Users", "ServiceProviderConfig", "Nothing"):
            assert directory.get(f"/scim/v2/{path}").status_code == 404
        assert identity.find("ada") is None
