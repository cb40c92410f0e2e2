"""Everybody's keys for admins: found, sorted, exported; each leads to its page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.domain import catalog
from tests.blueprints.portal.conftest import Browser, make_key, subscribe
from tests.house import People
from tests.page import read

SignedIn = Callable[[str], Browser]


def test_admins_find_the_keys_of_everybody(people: People, small: catalog.Model, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "No keys yet" in admin.page("/admin/keys").empty
    subscribe(people.owner, small)
    make_key(people.owner, name="website", budget={"limit": "3", "period": "day"})
    id, _ = make_key(people.stranger, name="robot")
    page = admin.page("/admin/keys")
    assert page.row_names == ["robot", "website"]
    assert page.table().column("Owner") == ["stranger", "owner"]
    assert page.row("website").cell("Spent") == "$0.00 of $3.00 today 0%"
    assert page.row("robot").link("robot").href == f"/keys/{id}"
    assert admin.page("/admin/keys?q=stranger", fragment=True).row_names == ["robot"]
    assert admin.page("/admin/keys?sort=owner").row_names == ["website", "robot"]
    assert admin.page("/admin/keys?model=small").row_names == ["website"]
    assert "No key fits this search." in admin.page("/admin/keys?status=revoked").empty
    assert admin.page(f"/keys/{id}").section("Breadcrumb").link("API keys").href == "/admin/keys"
    told = admin.get("/admin/keys?format=json&sort=owner", buffered=True).get_json()["data"]
    assert [(row["owner"], row["name"]) for row in told] == [("owner", "website"), ("stranger", "robot")]


@pytest.mark.parametrize(("who", "status"), [("owner", 403), ("auditor", 200)])
def test_who_may_look(people: People, signed_in: SignedIn, who: str, status: int) -> None:
    make_key(people.stranger, name="robot")
    answer = signed_in(who).get("/admin/keys")
    assert answer.status_code == status
    assert read(answer).row_names == (["robot"] if status == 200 else [])


def test_a_longer_list_takes_no_more_queries(
    people: People, small: catalog.Model, signed_in: SignedIn, count_queries: Callable[[], int]
) -> None:
    admin = signed_in("admin")
    subscribe(people.owner, small)
    for number in range(2):
        make_key(people.owner, name=f"first {number}")
    admin.get("/admin/keys")
    count_queries()
    admin.get("/admin/keys")
    few = count_queries()
    for number in range(12):
        make_key(people.stranger if number % 2 else people.owner, name=f"more {number}")
    count_queries()
    longer = admin.page("/admin/keys")
    assert count_queries() == few
    assert len(longer.rows) == 14
