"""Several people at once: each is done by itself, and deactivating asks for words."""

from __future__ import annotations

from collections.abc import Callable

from app.domain import identity
from app.extensions import db
from tests.blueprints.portal.conftest import Browser
from tests.house import People
from tests.page import read

SignedIn = Callable[[str], Browser]


def statuses(*usernames: str) -> list[str]:
    db.session.rollback()
    return [identity.named(username).status for username in usernames]


def test_people_are_deactivated_and_activated_together_with_a_result_for_each(
    people: People, signed_in: SignedIn
) -> None:
    admin = signed_in("admin")
    assert admin.page("/admin/people").button("Review selected")
    page = admin.page("/admin/people-selection?names=owner&names=stranger&names=admin&names=nobody")
    assert page.table("Selected people").column("Name") == ["owner", "stranger", "admin"]
    chosen = ["owner", "stranger", "admin"]
    refused = admin.post("/admin/people-selection", names=chosen, act="deactivate", confirm="deactivate 2")
    assert (refused.status_code, statuses("owner")) == (422, ["active"])
    answer = admin.post("/admin/people-selection", names=chosen, act="deactivate", confirm="deactivate 3")
    results = read(answer).table("Result of each person")
    assert results.row("owner").cell("Result") == "Deactivated"
    assert "your own account" in results.row("admin").cell("Result").text
    assert statuses(*chosen) == ["deactivated", "deactivated", "active"]
    assert admin.post("/admin/people-selection", names=chosen, act="activate").status_code == 200
    assert statuses(*chosen) == ["active", "active", "active"]


def test_without_a_choice_the_page_says_so(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "Nobody is selected" in admin.page("/admin/people-selection").headings
    assert admin.post("/admin/people-selection", names="owner", act="dance").status_code == 400


def test_read_only_admins_choose_nobody(people: People, signed_in: SignedIn) -> None:
    auditor = signed_in("auditor")
    assert "Review selected" not in [button.text for button in auditor.page("/admin/people").buttons]
    assert auditor.post("/admin/people-selection", names="owner", act="activate").status_code == 403
