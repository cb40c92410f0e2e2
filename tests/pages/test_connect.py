"""Which models a client is set up with, and what to do about a call that failed."""

from __future__ import annotations

import pytest

from app.domain import keys, subscriptions
from app.domain.keys import ApiKey
from app.extensions import db, transaction
from app.pages import connect
from app.pages.clients import BY_ID
from tests.house import People, make_model


@pytest.fixture
def key(people: People) -> ApiKey:
    """The owner's key; they may call an embedder, a chat model and a second one."""

    def make() -> ApiKey:
        for name, capability in (("a-vectors", "embeddings"), ("b-chat", "chat"), ("c-chat", "chat")):
            model = make_model(people.admin, name, capabilities=[capability])
            subscriptions.request(people.owner, model, by=people.owner)
        make_model(people.admin, "d-elsewhere")
        return keys.create(people.owner, by=people.owner, name="app")[0]

    return transaction(make)


def chosen(people: People, key: ApiKey | None, client: str, *asked: str) -> str | None:
    found = connect.connection(people.owner, key, *asked).model(BY_ID[client])
    return found and found.name


def test_without_a_wish_each_client_gets_the_first_model_that_suits_it(people: People, key: ApiKey) -> None:
    assert chosen(people, key, "codex") == "b-chat"
    assert chosen(people, key, "curl") == "a-vectors"
    assert chosen(people, None, "codex") == "b-chat"
    assert connect.connection(people.stranger, None).model(BY_ID["codex"]) is None


def test_the_model_that_was_asked_for_is_kept_even_where_it_does_not_suit(people: People, key: ApiKey) -> None:
    assert chosen(people, key, "codex", "c-chat") == "c-chat"
    assert chosen(people, key, "codex", "a-vectors") == "a-vectors"
    connection = connect.connection(people.owner, key, "a-vectors")
    assert [model.name for model in connection.choices(BY_ID["codex"])] == ["a-vectors", "b-chat", "c-chat"]


def test_a_model_that_the_key_cannot_call_is_named(people: People, key: ApiKey) -> None:
    connection = connect.connection(people.owner, key, "d-elsewhere")
    assert (connection.unknown, connection.model(BY_ID["codex"])) == ("d-elsewhere", connection.models[1])
    transaction(keys.update, db.session.get_one(ApiKey, key.id), by=people.owner, models=["c-chat"])
    assert [model.name for model in connect.connection(people.owner, key).models] == ["c-chat"]


def test_the_small_model_is_the_model_unless_another_was_asked_for(people: People, key: ApiKey) -> None:
    client = BY_ID["claude-code"]
    assert connect.connection(people.owner, key, "b-chat").setup(client).small.name == "b-chat"
    setup = connect.connection(people.owner, key, "b-chat", "c-chat").setup(client, "sk-shown")
    assert (setup.model.name, setup.small.name, setup.key_name, setup.secret) == ("b-chat", "c-chat", "app", "sk-shown")


def test_scopes_are_judged_by_what_the_client_does_with_the_model(people: People, key: ApiKey) -> None:
    narrow, _ = transaction(keys.create, people.owner, by=people.owner, name="narrow", scopes=["embeddings"])
    connection = connect.connection(people.owner, narrow, "a-vectors")
    assert not connection.is_out_of_scope(BY_ID["curl"])
    assert connection.is_out_of_scope(BY_ID["codex"])
    assert not connect.connection(people.owner, key).is_out_of_scope(BY_ID["codex"])


def test_live_keys_are_ones_own_newest_first_without_revoked_ones(people: People, key: ApiKey) -> None:
    newer, _ = transaction(keys.create, people.owner, by=people.owner, name="newer")
    gone, _ = transaction(keys.create, people.owner, by=people.owner, name="gone")
    transaction(keys.revoke, db.session.get_one(ApiKey, gone.id), by=people.owner)
    assert [one.id for one in connect.live_keys(people.owner)] == [newer.id, key.id]
    assert connect.live_keys(people.stranger) == []
