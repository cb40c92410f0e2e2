"""The menu around every page: what this process serves and this person may open, with where one is."""

from __future__ import annotations

from itertools import chain, permutations
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g
from flask_login import login_user

from app.domain import announcements, subscriptions
from app.domain.person import Person
from app.extensions import transaction
from app.pages import menu
from config import Config, load
from tests.house import People, make_model


@pytest.fixture
def config(home: Path, redis_url: str, database_url: str) -> Config:
    return load(
        {
            "CONFIG_STORAGE_DATA_DIR": str(home),
            "CONFIG_DATABASE_URL": database_url,
            "CONFIG_REDIS_URL": redis_url,
            "CONFIG_SERVER_DOORS": "portal,admin,public",
        }
    )


def around(app: Flask, person: Person | None, path: str = "/home", **headers: str) -> dict[str, Any]:
    """What the layouts are given for this person's request."""
    g.pop("_login_user", None)
    with app.test_request_context(path, headers=headers):
        if person is not None:
            login_user(person)
        told = menu.layout_context()
    g.pop("_login_user", None)
    return told


def entries(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["href"]: entry for section in told["menu"] for group in section["groups"] for entry in group["items"]}


def test_admins_pages_are_offered_to_who_may_see_them(app: Flask, people: People) -> None:
    for person, sees in ((people.owner, False), (people.auditor, True), (people.admin, True)):
        told = around(app, person)
        assert any(href.startswith("/admin/") for href in entries(told)) is sees
        assert (told["status_href"] is not None) is sees
        assert "/keys" in entries(told)


def test_nobody_is_offered_nothing(app: Flask, people: People) -> None:
    assert "menu" not in around(app, None)
    transaction(lambda: setattr(people.owner, "must_change_password", True))
    assert "menu" not in around(app, people.owner), "before the password is changed nothing else can be opened"


@pytest.mark.parametrize(
    ("path", "current"),
    [
        ("/keys", {"/keys"}),
        ("/keys/1/settings", {"/keys"}),
        ("/keysmith", set()),
        ("/budget-requests/1", {"/budgets"}),
        ("/admin/teams", {"/admin/teams"}),
        ("/admin/invitations/new", {"/admin/people"}),
        ("/", set()),
    ],
)
def test_the_entry_of_the_page_is_the_current_one(app: Flask, people: People, path: str, current: set[str]) -> None:
    found = entries(around(app, people.admin, path))
    assert {href for href, entry in found.items() if entry["current"]} == current


def groups(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The groups of the admins' section, by name."""
    return {group["label"]: group for section in told["menu"][1:] for group in section["groups"]}


def test_no_name_in_the_menu_begins_another() -> None:
    labels = [entry.label for entry in chain(menu.USER, *menu.ADMIN.values())]
    assert [(one, other) for one, other in permutations(labels, 2) if other.startswith(one)] == []


def test_the_group_of_the_page_is_open_and_so_are_those_that_the_browser_opened(app: Flask, people: People) -> None:
    def opened(path: str, **headers: str) -> list[str]:
        return [name for name, group in groups(around(app, people.admin, path, **headers)).items() if group["open"]]

    assert list(groups(around(app, people.admin))) == ["Access", "Catalogue", "Money", "Operations"]
    assert opened("/home") == []
    assert opened("/admin/invitations/new") == ["Access"]
    assert opened("/admin/status", Cookie=f"{menu.OPENED}=money.nothing") == ["Money", "Operations"]


def test_a_group_in_which_something_waits_is_open_and_says_how_much(app: Flask, people: People) -> None:
    model = transaction(make_model, people.admin, restricted=True)
    transaction(subscriptions.request, people.owner, model, by=people.owner, justification="Research.")
    badges = {name: group["badge"] for name, group in groups(around(app, people.admin)).items()}
    assert badges == {"Access": 1, "Catalogue": 0, "Money": 0, "Operations": 0}
    is_open = {name: group["open"] for name, group in groups(around(app, people.admin)).items()}
    assert is_open == {"Access": True, "Catalogue": False, "Money": False, "Operations": False}


def test_what_waits_is_counted_at_the_approvals(app: Flask, people: People) -> None:
    assert entries(around(app, people.admin))[menu.APPROVALS]["badge"] is None
    model = transaction(make_model, people.admin, restricted=True)
    transaction(subscriptions.request, people.owner, model, by=people.owner, justification="Research.")
    found = entries(around(app, people.admin))
    assert {href for href, entry in found.items() if entry["badge"]} == {menu.APPROVALS}
    assert found[menu.APPROVALS]["badge"] == 1


def test_a_banner_that_this_browser_put_away_stays_away(app: Flask, people: People) -> None:
    banner = transaction(announcements.put_up, by=people.admin, level="warning", text="Tonight.")
    told = around(app, people.owner, "/keys?page=2")["announcement"]
    assert (told["level"], told["text"]) == ("warning", "Tonight.")
    assert "next=/keys?page%3D2" in told["dismiss_href"]
    assert around(app, people.owner, Cookie=f"{menu.DISMISSED}={banner.id}")["announcement"] is None
    transaction(announcements.put_up, by=people.admin, level="info", text="Tomorrow.")
    assert around(app, people.owner, Cookie=f"{menu.DISMISSED}={banner.id}")["announcement"]["text"] == "Tomorrow."


def test_a_menu_is_put_in_once(app: Flask) -> None:
    processors = len(app.template_context_processors[None])
    menu.init_menu(app)
    assert len(app.template_context_processors[None]) == processors
