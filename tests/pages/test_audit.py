"""Audit entries in words: each with a link to what it is about, as long as that exists and this process shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from app.domain import audit
from app.extensions import transaction
from app.pages.audit import Line, lines
from app.runtime.ids import new_id
from config import Config, load
from tests.house import People, make_model


@pytest.fixture
def config(home: Path, redis_url: str, database_url: str) -> Config:
    return load(
        {
            "CONFIG_STORAGE_DATA_DIR": str(home),
            "CONFIG_DATABASE_URL": database_url,
            "CONFIG_REDIS_URL": redis_url,
            "CONFIG_SERVER_DOORS": "admin",
        }
    )


def line(app: Flask, people: People, action: str, kind: str, id: str, **values: object) -> Line:
    entry = transaction(audit.record, people.admin, action, kind, id, **values)
    with app.test_request_context():
        (found,) = lines([entry])
    return found


def test_an_entry_leads_to_its_object_and_to_who_acted(app: Flask, people: People) -> None:
    found = line(app, people, "person.update", "person", people.owner.id, name="owner", after={"role": "admin"})
    assert (found.title, found.kind, found.text) == ("Person changed", "person", "role: admin")
    assert (found.object_href, found.actor_href) == ("/admin/people/owner", "/admin/people/admin")
    model = transaction(make_model, people.admin, "small")
    assert line(app, people, "price.set", "model", model.id).object_href == f"/admin/models/{model.id}"


def test_an_entry_about_a_budget_leads_to_the_budget(app: Flask, people: People) -> None:
    found = line(app, people, "budget.set", "user", people.owner.id)
    assert (found.name, found.object_href) == ("owner", "/admin/budgets/user/owner")
    gone = line(app, people, "budget.set", "user", id := new_id())
    assert (gone.name, gone.object_href) == (id, None)


def test_what_is_gone_or_shown_elsewhere_has_no_link(app: Flask, people: People) -> None:
    assert line(app, people, "person.delete", "person", new_id()).object_href is None
    assert line(app, people, "thing.act", "thing", "1").object_href is None
    assert line(app, people, "dead_letter.post", "dead_letter", "1").object_href == "/admin/dead-letters"
    with app.test_request_context():
        app.view_functions.pop("admin.models.detail")
        model = transaction(make_model, people.admin, "small")
        entry = transaction(audit.record, None, "price.set", "model", model.id)
        (found,) = lines([entry])
    assert (found.object_href, found.actor_href) == (None, None)
