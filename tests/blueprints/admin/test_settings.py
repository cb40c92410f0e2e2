"""The page of settings: changed and seen at once, a conflict shown, and a test of the mail server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.domain import deliveries
from app.domain.deliveries import Undelivered
from app.extensions import db, transaction
from tests.blueprints.admin.conftest import usable
from tests.blueprints.portal.conftest import Browser
from tests.house import People
from tests.page import read

SignedIn = Callable[[str], Browser]
FORM = {
    "portal_name": "Portico", "portal_banner": "", "keys_default_lifetime_days": "90", "keys_max_lifetime_days": "0",
    "gateway_budget_stop_status": "429", "gateway_default_model": "", "log_level": "info",
}  # fmt: skip


def test_a_change_acts_on_every_page(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    page = admin.page("/admin/settings")
    sent = page.form("/admin/settings").sends
    assert {name: sent[name] for name in FORM} == FORM
    changed = {**FORM, "portal_name": "Our models", "portal_banner": "No personal data", "keys_max_lifetime_days": "60"}
    assert admin.post("/admin/settings", page="/admin/settings", **changed).status_code == 303
    home = signed_in("owner").get("/home").text
    assert "Our models" in home and "No personal data" in home
    assert "Our models" in admin.get("/admin/settings").text


def test_what_is_wrong_is_said_at_its_fields(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    wrong = {**FORM, "portal_name": "x" * 101, "keys_max_lifetime_days": "9999"}
    refused = admin.post("/admin/settings", page="/admin/settings", **wrong)
    assert (refused.status_code, set(read(refused).errors)) == (
        422,
        {"Name of the portal", "Maximum lifetime of a key"},
    )
    unknown = admin.post("/admin/settings", page="/admin/settings", **{**FORM, "gateway_default_model": "none"})
    assert (unknown.status_code, set(read(unknown).errors)) == (422, {"Default model"})


def test_a_change_of_somebody_else_is_shown_and_not_overwritten(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    opened = admin.page("/admin/settings").form("/admin/settings").sends
    first = {**FORM, "portal_banner": "First"}
    assert admin.post("/admin/settings", page="/admin/settings", **first).status_code == 303
    late = admin.post("/admin/settings", **{**FORM, "portal_banner": "Second", "version": opened["version"]})
    assert late.status_code == 409
    assert "First" in late.text and "Second" in late.text


def test_who_may_only_read_changes_nothing(people: People, signed_in: SignedIn) -> None:
    auditor = signed_in("auditor")
    page = auditor.page("/admin/settings")
    assert "Save settings" not in usable(page)


@pytest.mark.parametrize("error", [None, "The mail server could not be reached."])
def test_the_mail_server_is_tried(
    people: People, signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch, error: str | None
) -> None:
    sent = []

    def mail(target: str, payload: dict[str, str], id: str) -> None:
        sent.append((target, payload["subject"]))
        if error:
            raise Undelivered(error)

    monkeypatch.setattr(deliveries, "_mail", mail)
    transaction(lambda: setattr(db.session.merge(people.admin), "email", "admin@example.org"))
    admin = signed_in("admin")
    assert admin.post("/admin/settings/mail-test").status_code == 303
    assert sent == [("admin@example.org", "Portico: test e-mail")]
    assert (error or "accepted a test e-mail") in admin.get("/admin/settings").text
