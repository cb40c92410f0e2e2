"""Everybody's keys for admins: found, sorted, exported; each leads to its page."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from app.domain import catalog
from tests.blueprints.portal.conftest import Browser, make_key, subscribe
from tests.house import People

SignedIn = Callable[[str], Browser]


def names_in(page: str) -> list[str]:
    return re.findall(r'<a class="break" href="/keys/[^"]+">([^<]+)</a>', page)


def test_admins_find_the_keys_of_everybody(people: People, small: catalog.Model, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "No keys yet" in admin.get("/admin/keys").text
    subscribe(people.owner, small)
    make_key(people.owner, name="website", budget={"limit": "3", "period": "day"})
    id, _ = make_key(people.stranger, name="robot")
    page = admin.get("/admin/keys").text
    assert names_in(page) == ["robot", "website"]
    assert "of $3.00" in page
    assert names_in(admin.get("/admin/keys?q=stranger", fragment=True).text) == ["robot"]
    assert names_in(admin.get("/admin/keys?sort=owner").text) == ["website", "robot"]
    assert names_in(admin.get("/admin/keys?model=small").text) == ["website"]
    assert "No key fits this search." in admin.get("/admin/keys?status=revoked").text
    assert '<a class="pf-v6-c-breadcrumb__link" href="/admin/keys">' in admin.get(f"/keys/{id}").text
    told = admin.get("/admin/keys?format=json&sort=owner", buffered=True).get_json()["data"]
    assert [(row["owner"], row["name"]) for row in told] == [("owner", "website"), ("stranger", "robot")]


@pytest.mark.parametrize(("who", "status"), [("owner", 403), ("auditor", 200)])
def test_who_may_look(people: People, signed_in: SignedIn, who: str, status: int) -> None:
    make_key(people.stranger, name="robot")
    answer = signed_in(who).get("/admin/keys")
    assert answer.status_code == status
    assert ("robot" in answer.text) == (status == 200)


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
    assert len(names_in(admin.get("/admin/keys").text)) == 14
    assert count_queries() == few
