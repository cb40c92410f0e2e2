"""Saved views of the list of requests: saved from its filters, opened from it, and deleted there."""

from __future__ import annotations

from collections.abc import Callable

from app.domain import saved_views
from app.domain.catalog import Model
from app.extensions import db
from tests.blueprints.portal.conftest import Browser
from tests.house import People

SignedIn = Callable[[str], Browser]


def test_filters_are_saved_opened_and_deleted(people: People, small: Model, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    page = owner.page("/activity?range=7&status=error&live=1")
    sent = page.form("/views").sends
    assert (sent["list"], sent["query"]) == ("/activity", "range=7&status=error")
    answer = owner.post("/views", list="/activity", name="Failed", query="range=7&status=error&evil=1&cursor=x")
    assert answer.headers["Location"] == "/activity?range=7&status=error"
    page = owner.page("/activity")
    assert page.link("Failed").href == "/activity?range=7&status=error"
    [view] = db.session.scalars(saved_views.owned_by(people.owner))
    answer = owner.post(f"/views/{view.id}/deletion", back="/activity?range=7")
    assert answer.headers["Location"] == "/activity?range=7"
    assert "Failed" not in [link.text for link in owner.page("/activity").links]


def test_what_cannot_be_saved_is_said(people: People, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    assert owner.post("/views", list="/activity", name=" ", query="status=error").status_code == 303
    assert "Enter a name" in owner.page("/activity").whole.text
    assert owner.post("/views", list="https://evil.example", name="a").status_code == 400


def test_admins_have_views_of_everyones_requests_apart(people: People, signed_in: SignedIn) -> None:
    auditor = signed_in("auditor")
    auditor.post("/views", list="/admin/activity", name="Failed", query="status=error")
    assert auditor.page("/admin/activity").link("Failed").href == "/admin/activity?status=error"
    assert "Failed" not in [link.text for link in auditor.page("/activity").links]
