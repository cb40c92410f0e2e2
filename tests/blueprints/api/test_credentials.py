"""A person's own credential goes upstream with their own calls, and with nobody else's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from flask import Flask

from app import current, directory, store
from app.domain import subscriptions, teams
from app.domain.catalog import DeploymentSpec
from app.extensions import db, transaction
from app.ledger import posting
from app.metering.usage import UsageEvent
from app.runtime.sealing import digest
from app.workflows import key_rotation, publication
from tests.house import People, make_model, metered, sign_in  # noqa: F401
from tests.services.upstream import CHAT, Upstream, failure

TOKENS, RUN = "/api/tokens", "/api/inference/run"
MINE, OURS = "my-own-token-of-1234", "the-provider's-own-key"


@pytest.fixture
def served(app: Flask, people: People, metered: None, upstream: Upstream) -> Any:  # noqa: F811
    """The owner's way to `small`, whose provider takes personal credentials."""
    admin = sign_in(app, "admin")
    config = {"base_url": upstream.url, "api_key": OURS, "personal_credentials": True}
    made = admin.post("/api/providers", json={"name": "Up", "provider": "openai", "config": config})
    assert made.status_code == 201, made.text
    spec = DeploymentSpec(provider_id=made.get_json()["id"], upstream_model="m")
    model = transaction(make_model, None, "small", deployments=[spec])
    for person in (people.owner, people.stranger):
        transaction(lambda person=person: subscriptions.request(person, model, by=person))
    publication.publish_all()
    return sign_in(app, "owner")


def create(who: Any, **values: str) -> Any:
    made = who.post(TOKENS, json={"provider": "Up", "name": "mine", "token": MINE, **values})
    assert made.status_code == 201, made.text
    return made.get_json()


def sent(upstream: Upstream) -> str:
    """The credential of the last call."""
    return str(upstream.last.headers["authorization"]).removeprefix("Bearer ")


def ask(who: Any, **more: Any) -> Any:
    return who.post(RUN, json={"model": "small", "prompt": "one two", **more})


def test_it_is_created_listed_changed_and_deleted_and_never_shown(served: Any, app: Flask) -> None:
    made = create(served)
    assert (made["provider"], made["masked"], made["is_default"], made["last_used_at"]) == (
        "Up",
        "••••1234",
        True,
        None,
    )
    second = create(served, name="second", provider=made["provider_id"])
    path = f"{TOKENS}/{second['id']}"
    assert served.put(f"{path}/default").get_json()["is_default"] is True
    assert served.get(f"{TOKENS}/{made['id']}").get_json()["is_default"] is False
    renamed = served.put(path, json={"provider": "Up", "name": "renamed", "token": "another-token-of-5678"})
    assert (renamed.get_json()["name"], renamed.get_json()["masked"]) == ("renamed", "••••5678")
    assert served.put(path, json={"provider": "Else"}).get_json()["error"]["field"] == "provider"
    listed = served.get(TOKENS)
    assert [row["id"] for row in listed.get_json()["data"]] == [second["id"], made["id"]]
    assert MINE not in listed.text
    stranger = sign_in(app, "stranger")
    assert [stranger.get(path).status_code, stranger.delete(path).status_code] == [404, 404]
    assert stranger.get(TOKENS).get_json()["total"] == 0
    assert [served.delete(path).status_code, served.get(path).status_code] == [204, 404]


def test_it_is_refused_where_the_provider_does_not_take_it(served: Any, app: Flask) -> None:
    closed = {"name": "Shut", "provider": "openai", "config": {"api_key": OURS}}
    assert sign_in(app, "admin").post("/api/providers", json=closed).status_code == 201
    refused = served.post(TOKENS, json={"provider": "Shut", "name": "x", "token": MINE})
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (403, "personal_credentials_off")


def test_it_goes_with_calls_of_that_person_and_with_no_others(
    served: Any, app: Flask, people: People, upstream: Upstream
) -> None:
    assert ask(served).status_code == 200 and sent(upstream) == OURS
    made = create(served)
    assert ask(served).status_code == 200 and sent(upstream) == MINE
    assert ask(sign_in(app, "stranger")).status_code == 200 and sent(upstream) == OURS
    event = msgspec.json.decode(current.redis().xrange(store.USAGE)[1][1]["e"], type=UsageEvent)
    assert event.attempts[0].credential_id == made["id"]
    posting.post([event])
    db.session.expire_all()
    assert served.get(f"{TOKENS}/{made['id']}").get_json()["last_used_at"] is not None
    off = {
        "name": "Up",
        "provider": "openai",
        "config": {"base_url": upstream.url, "api_key": OURS, "personal_credentials": False},
    }
    admin = sign_in(app, "admin")
    assert admin.put(f"/api/providers/{made['provider_id']}", json=off).status_code == 200
    assert ask(served).status_code == 200 and sent(upstream) == OURS


def test_keys_and_tokens_of_the_person_bear_it_and_keys_of_a_team_do_not(
    served: Any, app: Flask, people: People
) -> None:
    own = served.post("/api/keys", json={"name": "own"}).get_json()
    team = transaction(lambda: teams.create(by=people.owner, name="Research"))
    theirs = served.post("/api/keys", json={"name": "theirs", "team_id": team.id}).get_json()
    made = create(served)

    def carried(text: str) -> list[str]:
        name = store.caller(digest(current.secrets().key_pepper, text))
        record = msgspec.json.decode(str(current.redis().get(name)), type=directory.CallerRecord)
        return [one.id for one in record.credentials.values()]

    bearer = served.headers["Authorization"].removeprefix("Bearer ")
    assert [carried(text) for text in (own["key"], bearer, theirs["key"])] == [[made["id"]], [made["id"]], []]
    assert served.delete(f"{TOKENS}/{made['id']}").status_code == 204
    assert carried(own["key"]) == []


def test_it_is_not_sent_to_where_the_provider_has_moved(
    served: Any, app: Flask, upstream: Upstream, make_upstream: Any
) -> None:
    made, other = create(served), make_upstream()
    moved = {
        "name": "Up",
        "provider": "openai",
        "config": {"base_url": other.url, "api_key": "for-the-new-place", "personal_credentials": True},
    }
    changed = sign_in(app, "admin").put(f"/api/providers/{made['provider_id']}", json=moved)
    assert changed.status_code == 200, changed.text
    assert ask(served).status_code == 200
    assert sent(other) == "for-the-new-place"


def test_a_bad_one_is_told_to_its_owner_and_opens_no_breaker_for_others(
    served: Any, app: Flask, upstream: Upstream
) -> None:
    create(served)
    upstream.script(CHAT, *[failure(401)] * 6)
    assert {ask(served).status_code for _ in range(6)} == {502}
    assert ask(sign_in(app, "stranger")).status_code == 200


def test_a_rotation_of_the_encryption_key_seals_it_anew(served: Any, app: Flask, upstream: Upstream) -> None:
    create(served)
    transaction(key_rotation.start, by=None)
    done = key_rotation.run()
    assert done is not None and (done.state, done.total, done.done) == ("done", 2, 2)
    assert ask(served).status_code == 200 and sent(upstream) == MINE
