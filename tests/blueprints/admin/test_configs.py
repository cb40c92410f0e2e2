"""Admins save the present configuration, look at what differs, activate one, and import a document after a preview."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from app.domain import catalog, saved_configs
from app.domain.saved_configs import SavedConfig
from app.extensions import db, transaction
from app.workflows import config_changes
from tests.blueprints.admin.conftest import usable
from tests.blueprints.portal.conftest import Browser
from tests.house import People, make_model

SignedIn = Callable[[str], Browser]


@pytest.fixture
def initial(people: People) -> str:
    """The id of the first configuration; since then there is another model."""
    transaction(make_model, people.admin, "small")
    transaction(config_changes.ensure_first)
    transaction(make_model, people.admin, "later")
    found = saved_configs.default()
    assert found is not None
    return found.id


def test_the_present_state_is_saved_under_a_name(initial: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    answer = admin.post("/admin/configs", page="/admin/configs/new", name="Summer", description="Cheap.")
    assert answer.status_code == 303
    rows = admin.page("/admin/configs").table().rows
    assert [row.cell("Name").texts[0] for row in rows] == ["Summer", "Initial"]
    assert "Default" in rows[1].cell("Name").texts
    again = admin.post("/admin/configs", page="/admin/configs/new", name="summer")
    assert again.status_code == 422
    assert admin.page("/admin/configs?q=summ").table().rows
    path = answer.headers["Location"]
    assert admin.post(path, name="Autumn", description="").status_code == 303
    assert admin.page(path).headings[0].text == "Autumn"


def test_activating_shows_what_changes_and_leads_back(initial: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    page = admin.page(f"/admin/configs/{initial}/activation")
    [row] = page.table().rows
    assert row.cell("What").texts[-1] == "model later"
    assert (row.cell("Before").texts, row.cell("After").texts) == (["active"], ["disabled"])
    answer = admin.post(f"/admin/configs/{initial}/activation")
    previous = answer.headers["Location"]
    db.session.rollback()
    assert catalog.model("later").status == "disabled"
    assert "would change" in admin.page(previous).text
    assert admin.post(f"{previous}/activation").status_code == 303
    db.session.rollback()
    assert catalog.model("later").status == "active"
    against = admin.page(f"{previous}?against={initial}", fragment=True)
    assert [row.cell("What").texts[-1] for row in against.table().rows] == ["model later"]


def test_a_document_is_imported_after_a_preview(initial: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    document = {"portico": 1, "models": [{"name": "small", "description": "<b>Small</b>"}]}
    text = json.dumps(document)
    shown = admin.post("/admin/configs/import", document=text)
    assert shown.status_code == 200 and "&lt;b&gt;Small&lt;/b&gt;" in shown.text and "<b>Small" not in shown.text
    assert catalog.model("small").description == ""
    assert admin.post("/admin/configs/import", document=text, act="import").status_code == 303
    db.session.rollback()
    assert catalog.model("small").description == "<b>Small</b>"
    for wrong in ("{", "[" * 100_000, '{"portico": 2}', '{"portico": 1, "models": [{"name": "a b"}]}'):
        assert admin.post("/admin/configs/import", document=wrong, act="import").status_code == 422
    exported = admin.get("/admin/configs/export")
    assert 'filename="portico.json"' in exported.headers["Content-Disposition"]
    assert admin.post("/admin/configs/import", document=exported.text, act="import").status_code == 303
    assert admin.get(f"/admin/configs/{initial}/export").get_json()["portico"] == 1


def test_the_default_stays_and_others_are_deleted(people: People, initial: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    other = transaction(config_changes.save, by=people.admin, name="Other").id
    for id in (initial, other):
        assert admin.post(f"/admin/configs/{id}/deletion").status_code == 303
    db.session.rollback()
    assert [item.id for item in db.session.query(SavedConfig)] == [initial]


def test_admins_who_only_read_see_all_and_change_nothing(initial: str, signed_in: SignedIn) -> None:
    auditor = signed_in("auditor")
    for path in ("", "/new", "/import", f"/{initial}", f"/{initial}/activation", f"/{initial}/deletion"):
        assert usable(auditor.page(f"/admin/configs{path}")) == [], path
