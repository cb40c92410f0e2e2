"""The catalogue's search, the same on each database, and what a change of a model does to those who use it."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select

from app.domain import catalog, keys, providers, subscriptions
from app.domain.catalog import DeploymentSpec
from app.domain.errors import Invalid, NotFound
from app.domain.notices import Notice
from app.extensions import db, transaction
from app.web.lists import sorted_by_request
from app.workflows import catalog_changes
from app.workflows.catalog_changes import CatalogFilter
from tests.house import People, make_model


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.services, pytest.mark.both_databases])])
def database_url(request: pytest.FixtureRequest, home: Path) -> str:
    url = request.getfixturevalue("lasting_postgres_url") if request.param == "postgresql" else None
    return url or f"sqlite:///{home / 'portico.db'}"


def found(people: People, **filters: object) -> list[str]:
    return [item.name for item in db.session.scalars(catalog_changes.find(people.owner, CatalogFilter(**filters)))]  # type: ignore[arg-type]


def test_every_filter_and_count_works_on_each_database(inside: Flask, people: People) -> None:
    def make() -> None:
        make_model(None, "a", features=["tools", "größe"], context_window=1000, price={"input_per_mtok": "0"})
        make_model(None, "b", features=["tools_b"], restricted=True, price={"input_per_mtok": "3"})
        off = providers.create(by=None, name="Off", kind="echo", config={}, status="disabled")
        spec = DeploymentSpec(provider_id=off.id, upstream_model="c")
        make_model(None, "c", capabilities=["chat", "embeddings"], price=None, deployments=[spec])

    transaction(make)
    transaction(subscriptions.request, people.owner, catalog.model("a"), by=people.owner)
    assert found(people) == ["a", "b", "c"]
    assert found(people, feature="größe") == ["a"]
    assert found(people, feature="tools") == ["a"]
    assert found(people, capability="embeddings", status="unavailable") == ["c"]
    assert found(people, access="subscribed") == ["a"]
    assert found(people, access="open", status="available") == ["a"]
    assert found(people, least_nano=1, most_nano=3_000_000_000) == ["b"]
    assert found(people, context=1000) == ["a"]
    counts = catalog_changes.facets(people.owner, CatalogFilter(access="open"))
    told = {facet.value: facet.count for facet in chain.from_iterable(counts.values())}
    provider = db.session.scalar(select(providers.Provider.id).where(providers.Provider.name == "Off"))
    expected = {"chat": 2, "embeddings": 1, "tools": 1, "größe": 1, "subscribed": 1, "restricted": 1, "open": 2}
    expected |= {"available": 1, "deprecated": 0, "unavailable": 1, "new": 2, str(provider): 1}
    assert {name: told[name] for name in expected} == expected
    assert "tools_b" not in told
    for column in catalog_changes.columns():
        for sign in ("", "-"):
            with inside.test_request_context(f"/models?sort={sign}{column}"):
                names = [
                    item.name
                    for item in db.session.scalars(sorted_by_request(catalog.all_models(), catalog_changes.columns()))
                ]
            assert sorted(names) == ["a", "b", "c"]
            if column == "price":
                assert names == (["b", "a", "c"] if sign else ["a", "b", "c"])
    models = list(db.session.scalars(catalog.all_models()))
    assert catalog_changes.subscribers([item.id for item in models]) == {catalog.model("a").id: 1}
    assert set(catalog_changes.key_counts(models).values()) == {0}
    guarded = transaction(make_model, None, "guarded", restricted=True)
    transaction(keys.create, people.owner, by=people.owner, name="app")
    transaction(subscriptions.request, people.owner, guarded, by=people.owner, justification="Work.")
    assert catalog_changes.subscribers([guarded.id]) == {}, "a pending request uses nothing yet"
    assert catalog_changes.key_counts([guarded]) == {guarded.id: 0} and keys.count_using(guarded) == 0
    assert catalog.only_served_by(providers.get(str(provider))) == ["c"]


def test_a_restriction_turns_active_access_pending_and_tells_each_person(inside: Flask, people: People) -> None:
    model = transaction(make_model, None, "small")
    for person in (people.owner, people.stranger):
        transaction(subscriptions.request, person, model, by=person)
    held = subscriptions.live(people.stranger, model)
    assert held is not None
    transaction(subscriptions.decide, held, "suspend", by=people.admin, reason="For now.")
    transaction(catalog_changes.change, model, by=people.admin, restricted=True)
    assert {one.person.username: one.status for one in db.session.scalars(select(subscriptions.Subscription))} == {
        "owner": "pending",
        "stranger": "suspended",
    }
    told = db.session.scalars(select(Notice).where(Notice.kind == "subscription.restrict")).all()
    assert [notice.person_id for notice in told] == [people.owner.id]
    transaction(catalog_changes.change, model, by=people.admin, description="Still restricted.")
    assert len(db.session.scalars(select(Notice).where(Notice.kind == "subscription.restrict")).all()) == 1


def test_opening_a_model_ends_every_wait_for_it(inside: Flask, people: People) -> None:
    model = transaction(make_model, None, "small", restricted=True)
    for person in (people.owner, people.stranger):
        transaction(subscriptions.request, person, model, by=person)
    held = subscriptions.live(people.stranger, model)
    assert held is not None
    transaction(subscriptions.decide, held, "approve", by=people.admin)
    transaction(subscriptions.decide, held, "suspend", by=people.admin, reason="For now.")
    transaction(catalog_changes.change, model, by=people.admin, restricted=False)
    assert {one.person.username: one.status for one in db.session.scalars(select(subscriptions.Subscription))} == {
        "owner": "active",
        "stranger": "suspended",
    }
    assert db.session.scalar(subscriptions.awaiting_decision_count()) == 0
    told = db.session.scalars(select(Notice).where(Notice.kind == "subscription.approve")).all()
    assert [notice.person_id for notice in told] == [people.stranger.id, people.owner.id]


def test_hidden_models_show_to_their_subscribers_only(people: People) -> None:
    model = transaction(make_model, people.admin)
    transaction(subscriptions.request, people.owner, model, by=people.owner)
    transaction(catalog.update_model, model, by=None, status="hidden")
    assert catalog_changes.visible(people.owner, "small") is model
    assert catalog_changes.visible(people.auditor, "small") is model
    with pytest.raises(NotFound):
        catalog_changes.visible(people.stranger, "small")
    with pytest.raises(Invalid):
        transaction(subscriptions.request, people.stranger, model, by=people.stranger)


def test_removing_a_model_cancels_its_subscriptions_and_remembers_its_name(people: People) -> None:
    model = transaction(make_model, people.admin)
    found, _ = transaction(subscriptions.request, people.owner, model, by=people.owner)
    transaction(catalog_changes.delete, model, by=people.admin)
    db.session.refresh(found)
    assert (found.status, found.model_id, found.model_name) == ("cancelled", None, "small")
    transaction(make_model, people.admin)
