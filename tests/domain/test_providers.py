"""Providers: their secrets are kept and never shown, and a path may use what there is and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from app.domain import providers
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.providers import MASK, Endpoint, Provider
from app.extensions import db, transaction
from app.gateway.endpoints import ENDPOINTS
from tests.house import People

SECRET = "sk-upstream-secret-1234"


def create(people: People, name: str = "Lab", kind: str = "openai", **config: Any) -> Provider:
    config = {"api_key": SECRET} | config if kind == "openai" else config
    return transaction(providers.create, by=people.admin, name=name, kind=kind, config=config)


@given(st.text(min_size=1, max_size=40))
def test_a_mask_tells_a_quarter_of_a_secret_at_most(secret: str) -> None:
    shown = providers.masked(secret).removeprefix(MASK)
    assert len(shown) * 4 <= len(secret)
    assert secret.endswith(shown)


def test_a_secret_is_sealed_and_kept_under_its_mask(people: People) -> None:
    made = create(people)
    assert SECRET not in f"{made.settings} {made.sealed} {made.hints} {made.summary()}"
    assert made.config["api_key"] == MASK + "1234"
    transaction(providers.update, made, by=people.admin, config={"api_key": MASK + "1234"})
    assert providers.opened(made).api_key == SECRET
    transaction(providers.update, made, by=people.admin, config={})
    assert providers.opened(made).api_key == SECRET
    transaction(providers.update, made, by=people.admin, config={"api_key": "sk-another-secret-5678"})
    assert providers.opened(made).api_key == "sk-another-secret-5678"


def test_a_secret_is_not_sent_to_another_origin(people: People) -> None:
    made = create(people, base_url="https://one.example.org/v1")
    with pytest.raises(Invalid) as refused:
        transaction(providers.update, made, by=None, config={"base_url": "https://two.example.org/v1"})
    assert refused.value.field == "config.api_key"
    transaction(providers.update, made, by=None, config={"base_url": "https://one.example.org/v2"})
    assert providers.opened(made).api_key == SECRET


def test_names_are_one_whatever_their_case(people: People) -> None:
    made = create(people, "Lab")
    with pytest.raises(Conflict) as refused:
        create(people, "LAB", "echo")
    assert refused.value.field == "name"
    transaction(providers.update, made, by=None, name="LAB")
    assert made.name == "LAB"


@pytest.mark.parametrize(
    ("values", "field"), [({"type": "tv"}, "type"), ({"status": "broken"}, "status"), ({"kind": "none"}, "provider")]
)
def test_what_a_provider_cannot_be_is_refused(people: People, values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        transaction(providers.create, by=None, **{"name": "x", "kind": "echo", "config": {}, **values})
    assert refused.value.field == field
    with pytest.raises(Invalid):
        transaction(providers.switch, create(people, "y", "echo"), "broken", by=None)


def test_another_kind_takes_no_secret_along(people: People) -> None:
    made = create(people)
    transaction(providers.update, made, by=None, kind="echo", config={})
    assert (made.sealed, made.hints) == (None, {})


def test_a_list_is_narrowed_by_each_of_its_filters(people: People) -> None:
    create(people, "b", "echo")
    transaction(providers.switch, create(people, "A_1", "echo"), "disabled", by=None)
    create(people, "c")

    def names(**filters: Any) -> list[str]:
        return [one.name for one in db.session.scalars(providers.search(**filters))]

    assert names() == ["A_1", "b", "c"]
    assert names(status="disabled") == names(search="a_") == names(search="_") == ["A_1"]
    assert names(kind="openai") == names(search="OPENAI") == ["c"]
    assert names(type="web") == []


def test_a_removed_provider_leaves_every_path(people: People) -> None:
    gone, stays = create(people, "gone", "echo"), create(people, "stays", "echo")
    chat, other = db.session.scalars(select(Endpoint).order_by(Endpoint.path).limit(2)).all()
    transaction(providers.update_endpoint, chat, by=None, providers=[gone.id, stays.id, gone.id])
    assert chat.providers == [gone.id, stays.id]
    transaction(providers.remove, gone, by=people.admin)
    assert (chat.providers, other.providers) == ([stays.id], [])
    with pytest.raises(NotFound):
        providers.get(gone.id)


def test_a_path_uses_only_providers_that_there_are(people: People) -> None:
    chat = db.session.scalars(select(Endpoint)).first()
    assert chat is not None
    with pytest.raises(Invalid) as refused:
        transaction(providers.update_endpoint, chat, by=None, active=False, providers=["none"])
    assert refused.value.field == "mapping.providers"
    db.session.refresh(chat)
    assert (chat.active, chat.providers) == (True, [])


def test_paths_are_those_that_are_served_and_may_be_switched_off(inside: Flask) -> None:
    everything = [one.id for one in db.session.scalars(providers.all_endpoints())]
    assert sorted(everything) == sorted(ENDPOINTS)
    first = providers.endpoint(everything[0])
    transaction(providers.update_endpoint, first, by=None, active=False)
    assert [one.id for one in db.session.scalars(providers.all_endpoints(status="inactive"))] == [first.id]
    assert first.id not in {one.id for one in db.session.scalars(providers.all_endpoints(status="active"))}
    transaction(db.session.add, Endpoint(id="of-a-newer-version", path="/v1/telepathy"))
    with pytest.raises(NotFound):
        providers.endpoint("of-a-newer-version")
    transaction(providers.ensure_endpoints)
    assert sorted(one.id for one in db.session.scalars(providers.all_endpoints())) == sorted(ENDPOINTS)
    assert providers.endpoint(first.id).active is False, "what there is stays as it is"
