"""Saved configurations: named once, one default, and of those that were saved automatically only the newest."""

from __future__ import annotations

import pytest

from app.domain import audit, saved_configs
from app.domain.errors import Conflict, Invalid, NotFound
from app.extensions import db, transaction
from tests.house import People

DOCUMENT = {"portico": 1}


def save(name: str, **more: object) -> saved_configs.SavedConfig:
    return transaction(saved_configs.create, dict(DOCUMENT), by=None, name=name, **more)


def names() -> list[str]:
    return [item.name for item in db.session.scalars(saved_configs.search())]


def test_they_are_listed_newest_first_and_found_by_a_part_of_their_name(people: People) -> None:
    for name in ("Summer", "Winter 100%"):
        save(name)
    assert names() == ["Winter 100%", "Summer"]
    assert [item.name for item in db.session.scalars(saved_configs.search("0%"))] == ["Winter 100%"]


def test_a_name_is_taken_once_whatever_its_case(people: People) -> None:
    save("Summer")
    with pytest.raises(Conflict) as refused:
        save("summer")
    assert refused.value.field == "name"
    with pytest.raises(Invalid):
        save(" ")


def test_what_people_say_of_one_is_changed_and_recorded(people: People) -> None:
    item = save("Summer")
    transaction(saved_configs.update, item, by=people.admin, name="Autumn", description="Cheaper.")
    assert (item.name, item.description) == ("Autumn", "Cheaper.")
    entry = db.session.scalars(audit.entries(action="config.update")).one()
    assert entry.detail["before"] == {"name": "Summer", "description": ""}


def test_exactly_one_is_the_default_and_it_cannot_be_deleted(people: People) -> None:
    first, second = save("a"), save("b")
    for item in (first, second, second, first):
        transaction(saved_configs.make_default, item)
        assert [one.name for one in db.session.scalars(saved_configs.search()) if one.is_default] == [item.name]
    with pytest.raises(Conflict):
        transaction(saved_configs.remove, first, by=people.admin)
    id = second.id
    transaction(saved_configs.remove, second, by=people.admin)
    with pytest.raises(NotFound):
        saved_configs.get(id)


def test_automatic_ones_get_a_free_name_and_the_oldest_leave(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_configs, "MOST_AUTOMATIC", 2)
    save("mine")
    oldest = save("auto", automatic=True)
    transaction(saved_configs.make_default, oldest)
    for _ in range(3):
        save("auto", automatic=True)
    assert names() == ["auto (4)", "auto (3)", "auto", "mine"], "the default stays"
    assert save("x" * 100, automatic=True).name == "x" * 100
    assert save("x" * 100, automatic=True).name == "x" * 96 + " (2)"
