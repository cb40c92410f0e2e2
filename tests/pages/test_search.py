"""Search over everything: what matches best comes first, nothing is found that its person cannot see, and an id finds
exactly what has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event as sql_event

from app.domain import keys, providers, subscriptions, teams
from app.domain.errors import Invalid
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.teams import Team
from app.extensions import db, transaction
from app.ledger import posting
from app.pages import search
from app.pages.search import Hit
from app.runtime.ids import new_id
from config import Config
from tests.house import People, configured, make_model, make_team
from tests.ledger.books import event, refused_event


@pytest.fixture
def config(home: Any, redis_url: str, database_url: str) -> Config:
    return configured(home, redis_url, database_url, "portal,admin,api,public")


@pytest.fixture(autouse=True)
def a_request(app: Flask, people: People) -> Iterator[None]:
    with app.test_request_context("/search"):
        yield


def find(person: Person, text: str, **options: Any) -> list[Hit]:
    db.session.rollback()
    return search.find(person, text, **{"everything": True, **options})


def titles(person: Person, text: str, **options: Any) -> list[str]:
    return [hit.title for hit in find(person, text, **options)]


def make_key(person: Person, name: str, team: Team | None = None) -> ApiKey:
    key, _ = transaction(keys.create, person, by=person, name=name, team=team)
    return key


def test_equal_titles_come_before_those_that_begin_with_it_and_those_that_contain_it(people: People) -> None:
    for name in ("my prod key", "Prod key", "prod", "nothing alike"):
        make_key(people.owner, name)
    assert titles(people.owner, "PROD") == ["prod", "Prod key", "my prod key"]
    assert titles(people.owner, " prod ", limit=2) == ["prod", "Prod key"], "the best ones are within the limit"


def test_kinds_take_turns_among_equal_matches(people: People) -> None:
    for number in range(5):
        make_key(people.owner, f"research {number}")
    transaction(teams.create, by=people.owner, name="Research team")
    transaction(make_model, people.admin, "research-model")
    found = find(people.owner, "research", limit=4)
    assert [hit.kind for hit in found] == ["model", "key", "team", "key"]
    groups = search.by_kind(found)
    assert {kind: len(hits) for kind, hits in groups.items()} == {"model": 1, "key": 2, "team": 1}


def test_a_key_is_found_by_its_last_four_characters_before_names_that_contain_them(people: People) -> None:
    key = make_key(people.owner, "app")
    make_key(people.owner, f"not {key.last4} at all")
    first, second = find(people.owner, key.last4)
    assert (first.title, first.url) == ("app", f"/keys/{key.id}")
    assert first.detail == f"{key.prefix}…{key.last4}, active"
    assert second.title.startswith("not")


def test_a_key_of_somebody_else_or_of_a_team_says_whose_it_is(people: People) -> None:
    mine, theirs = make_key(people.owner, "mine one"), make_key(people.stranger, "theirs one")
    team = transaction(teams.create, by=people.owner, name="Research")
    shared = make_key(people.owner, "shared one", team)
    details = {hit.id: hit.detail.split(", ")[1:] for hit in find(people.admin, "one", kind="key")}
    assert details == {
        mine.id: ["owner", "active"],
        theirs.id: ["stranger", "active"],
        shared.id: ["Research", "active"],
    }
    own = {hit.id: hit.detail.split(", ")[1:] for hit in find(people.owner, "one", kind="key")}
    assert own == {mine.id: ["active"], shared.id: ["Research", "active"]}


def test_each_finds_only_what_they_can_see(people: People) -> None:
    model = transaction(make_model, people.admin, "small")
    hidden = transaction(make_model, people.admin, "small-secret", status="hidden")
    key = make_key(people.owner, "small app")
    team = transaction(make_team)
    lead, member = (one.person for one in db.session.scalars(teams.members_of(team)))
    shared = make_key(member, "small of the team", team)
    subscription, _ = transaction(subscriptions.request, people.owner, model, by=people.owner)
    seen = {
        name: {hit.id for hit in find(person, "small")}
        for name, person in {**vars(people), "lead": lead, "member": member}.items()
    }
    everyone = {model.id}
    assert seen["stranger"] == everyone
    assert seen["owner"] == {*everyone, key.id, subscription.id}
    assert seen["lead"] == seen["member"] == {*everyone, shared.id}
    assert seen["admin"] == seen["auditor"] == {*everyone, hidden.id, key.id, shared.id, subscription.id}
    assert [find(person, "resea") != [] for person in (lead, member, people.stranger, people.admin)] == [
        True, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["person", "provider"])
def test_people_and_providers_are_for_those_who_see_everything(people: People, kind: str) -> None:
    transaction(providers.create, by=people.admin, name="Owner's provider", kind="echo", config={})
    assert [len(find(person, "owner", kind=kind)) for person in (people.owner, people.stranger)] == [0, 0]
    assert [len(find(person, "owner", kind=kind)) for person in (people.admin, people.auditor)] == [1, 1]
    assert find(people.admin, "owner", kind=kind, everything=False) == [], "a token without the scope finds none"


def test_an_id_finds_what_has_it_and_nothing_of_others(people: People) -> None:
    model = transaction(make_model, people.admin, "small")
    key = make_key(people.owner, "app")
    subscription, _ = transaction(subscriptions.request, people.owner, model, by=people.owner)
    provider_id = model.deployments[0].provider_id
    for id, url in {
        key.id: f"/keys/{key.id}",
        subscription.id: f"/subscriptions/{subscription.id}",
        model.id: "/models/small",
        provider_id: f"/admin/providers/{provider_id}",
        people.stranger.id: "/admin/people/stranger",
    }.items():
        assert [hit.url for hit in find(people.admin, id.upper())] == [url]
    assert [find(people.stranger, id) for id in (key.id, subscription.id, provider_id, people.owner.id)] == [[]] * 4
    make_key(people.owner, f"see {new_id()}")
    assert titles(people.owner, titles(people.owner, "see")[0].removeprefix("see ")) == titles(people.owner, "see")


def test_requests_are_found_by_their_whole_id_alone(people: People) -> None:
    ids = [new_id(), new_id()]
    posting.post([event(request_id=ids[0], person_id=people.owner.id)])
    posting.post([refused_event(request_id=ids[1], person_id=people.owner.id)])
    for id in ids:
        assert [(hit.kind, hit.url) for hit in find(people.owner, id)] == [("request", f"/activity/{id}")]
        assert find(people.admin, id)
        assert find(people.stranger, id) == []
        assert find(people.owner, id[:-1]) == []


def test_pages_of_the_menu_are_found_as_the_menu_offers_them(people: People) -> None:
    assert [(hit.title, hit.url) for hit in find(people.owner, "keys")] == [("API keys", "/keys")]
    assert {hit.url for hit in find(people.admin, "keys", kind="page")} == {"/keys", "/admin/keys"}
    assert {hit.url for hit in find(people.admin, "keys", kind="page", everything=False)} == {"/keys"}
    assert [hit.url for hit in find(people.owner, "change password")] == ["/password"]


@pytest.mark.parametrize("text", ["", "x", " x ", "x" * 201, "a\0b"])
def test_a_text_that_is_too_short_too_long_or_cannot_be_stored_is_refused(people: People, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        find(people.owner, text)
    assert refused.value.field == "q"


@pytest.mark.parametrize("text", ["100%", "a_b", "\\d", "'; --", "né", "日本", "%%", "İi"])
def test_no_character_has_a_meaning_of_its_own(people: People, text: str) -> None:
    make_key(people.owner, f"x{text}x")
    make_key(people.owner, "100 a-b d nothing")
    assert titles(people.owner, text) == [f"x{text}x"]


def test_a_search_asks_a_few_questions_whatever_there_is(people: People) -> None:
    for number in range(30):
        make_key(people.owner, f"app {number}")
        transaction(make_model, people.admin, f"app-{number}")
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    sql_event.listen(db.engine, "before_cursor_execute", note)
    find(people.admin, "app", limit=50)
    sql_event.remove(db.engine, "before_cursor_execute", note)
    assert len([one for one in asked if one.startswith("SELECT")]) <= 12, asked
