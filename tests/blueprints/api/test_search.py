"""Search over the management API: its shape, its bounds, and that a token finds what its scopes let it see."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests.house import People, offer, sign_in


def test_what_is_found_says_its_kind_id_title_and_page(app: Flask, visitors: People) -> None:
    offer(app, "gpt-small", description="A small one.")
    owner = sign_in(app, "owner")
    key = owner.post("/api/keys", json={"name": "gpt app"}).get_json()
    answer = owner.get("/api/search?q=gpt")
    assert answer.status_code == 200
    told = answer.get_json()
    assert told["q"] == "gpt"
    assert [{**hit, "id": None} for hit in told["data"]] == [
        {"kind": "model", "id": None, "title": "gpt-small", "detail": "A small one.", "url": "/models/gpt-small"},
        {
            "kind": "key",
            "id": None,
            "title": "gpt app",
            "detail": f"{key['prefix']}…{key['last4']}, active",
            "url": f"/keys/{key['id']}",
        },
    ]
    assert [hit["id"] for hit in owner.get("/api/search?q=gpt&kind=key").get_json()["data"]] == [key["id"]]
    assert len(owner.get("/api/search?q=gpt&limit=1").get_json()["data"]) == 1
    assert owner.get("/api/search?q=gpt&kind=prompt").get_json()["data"] == []
    assert sign_in(app, "stranger").get("/api/search?q=gpt&kind=key").get_json()["data"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "q"),
        ("q=", "q"),
        ("q=x", "q"),
        ("q=%20x%20", "q"),
        ("q=" + "x" * 201, "q"),
        ("q=a%00b", "q"),
        ("q=app&limit=51", "limit"),
        ("q=app&limit=0", "limit"),
        ("q=app&kind=planet", "kind"),
    ],
)
def test_a_query_out_of_bounds_is_refused_naming_its_part(app: Flask, visitors: People, query: str, field: str) -> None:
    answer = sign_in(app, "owner").get(f"/api/search?{query}")
    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, field)


@pytest.mark.parametrize(("scope", "found"), [("portal", []), ("portal admin", ["person"])])
def test_a_token_of_an_admin_finds_people_with_the_scope_admin_alone(
    app: Flask, visitors: People, scope: str, found: list[Any]
) -> None:
    told = sign_in(app, "admin", scope=scope).get("/api/search?q=stranger").get_json()
    assert [hit["kind"] for hit in told["data"]] == found
