"""What a person takes along: everything about them, no secret, and nothing of others."""

from __future__ import annotations

import msgspec
import redis

from app.domain import keys, notices, prompts, sessions, subscriptions, teams, tokens
from app.extensions import db, transaction
from app.workflows import personal_data
from tests.house import People, make_model


def test_an_export_has_all_of_a_person_and_no_secret(people: People, wire: redis.Redis) -> None:
    owner = people.owner
    model = transaction(make_model, people.admin, "small")
    transaction(subscriptions.request, owner, model, by=owner)
    key, secret = transaction(keys.create, owner, by=owner, name="app")
    transaction(teams.create, by=owner, name="Research")
    token = transaction(tokens.issue, owner, by=owner, name="script", days=7, scopes=["portal"])
    transaction(notices.notify, owner, "test", "A title", "Words")
    transaction(lambda: prompts.create(by=owner, name="Translate", template="{{text}}"))
    session = sessions.begin(owner.id, address="192.0.2.1", agent="one")
    transaction(keys.create, people.stranger, by=people.stranger, name="not theirs")
    db.session.rollback()
    text = msgspec.json.encode(personal_data.export(owner)).decode()
    told = msgspec.json.decode(text)
    assert told["profile"]["username"] == "owner"
    assert told["profile"]["timezone"] == "UTC"
    assert [one["name"] for one in told["teams"]] == ["Research"]
    assert [(one["id"], one["name"], one["last4"]) for one in told["api_keys"]] == [(key.id, "app", key.last4)]
    assert [one["model_name"] for one in told["subscriptions"]] == ["small"]
    assert [one["name"] for one in told["access_tokens"]] == ["script"]
    assert [one["template"] for one in told["prompts"]] == ["{{text}}"]
    assert [one["title"] for one in told["notifications"]] == ["A title"]
    assert [one["address"] for one in told["sessions"]] == ["192.0.2.1"]
    assert {"key.create", "token.issue"} <= {one["action"] for one in told["audit"]}
    assert told["budget_requests"] == []
    for hidden in (secret, token.access_token, session, str(owner.password_hash), "not theirs"):
        assert hidden not in text


def test_an_export_is_bounded(people: People, wire: redis.Redis, monkeypatch) -> None:
    monkeypatch.setattr(personal_data, "MOST", 3)
    for number in range(5):
        transaction(notices.notify, people.owner, "test", f"Number {number}")
    titles = [one["title"] for one in personal_data.export(people.owner)["notifications"]]
    assert titles == ["Number 4", "Number 3", "Number 2"]
