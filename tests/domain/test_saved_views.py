"""Filters that a person named: replaced by name, bounded, and nobody else's."""

from __future__ import annotations

import pytest

from app.domain import saved_views
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.person import Person
from app.extensions import db, transaction
from tests.house import People


def save(person: Person, name: str, query: str = "status=error", path: str = "/activity") -> saved_views.SavedView:
    return transaction(saved_views.save, person, path=path, name=name, query=query)


def test_a_view_is_replaced_by_its_name_within_its_list(people: People) -> None:
    save(people.owner, "Failed")
    save(people.owner, " Failed ", "status=502")
    save(people.owner, "Failed", path="/admin/activity")
    save(people.owner, "all", "")
    views = db.session.scalars(saved_views.owned_by(people.owner, "/activity")).all()
    assert [view.href for view in views] == ["/activity", "/activity?status=502"]
    assert len(db.session.scalars(saved_views.owned_by(people.owner)).all()) == 3


def test_nobody_elses_view_is_there(people: People) -> None:
    view = save(people.owner, "Failed")
    assert saved_views.get_own(people.owner, view.id) is view
    with pytest.raises(NotFound):
        saved_views.get_own(people.admin, view.id)


def test_names_filters_and_their_number_are_bounded(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, query in (("", ""), ("n" * 101, ""), ("long", "q" * 2001)):
        with pytest.raises(Invalid):
            save(people.owner, name, query)
    monkeypatch.setattr(saved_views, "MOST", 1)
    save(people.owner, "one")
    save(people.owner, "one", "range=7")
    with pytest.raises(Conflict):
        save(people.owner, "another")
    save(people.stranger, "another")
