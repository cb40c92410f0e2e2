"""Connect over the management API: each client's block, and a key's first call."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import redis
from flask import Flask

from app import clock, store
from app.extensions import transaction
from app.metering.usage import LastCall
from tests.house import People, make_model, sign_in

IDS = [
    "claude-code", "codex", "opencode", "cline", "continue", "openai-python", "anthropic-python", "langchain", "curl",
]  # fmt: skip


@pytest.fixture
def key_id(app: Flask, people: People) -> str:
    """The owner's key, which can call `small`."""
    transaction(make_model, people.admin, "small")
    transaction(make_model, people.admin, "other")
    owner = sign_in(app, "owner")
    assert owner.post("/api/subscriptions", json={"model": "small"}).status_code == 201
    return str(owner.post("/api/keys", json={"name": "laptop"}).get_json()["id"])


def blocks(app: Flask, who: str = "owner", query: str = "") -> dict[str, Any]:
    answer = sign_in(app, who).get(f"/api/connect{query}")
    assert answer.status_code == 200, answer.text
    told = answer.get_json()
    assert told["base_url"] == "http://localhost/v1"
    return {client["id"]: client for client in told["clients"]}


def test_every_client_is_told_with_its_block(app: Flask, key_id: str) -> None:
    told = blocks(app, query=f"?key_id={key_id}&model=small")
    assert list(told) == IDS
    assert {client["kind"] for client in told.values()} == {"file", "env", "code"}
    assert {id for id, client in told.items() if "path" in client} == {"codex", "opencode", "continue"}
    for client in told.values():
        assert "PORTICO_API_KEY" in client["text"] and "small" in client["text"] and "laptop" in client["text"]


def test_without_a_key_the_block_names_a_model_that_the_person_may_see(app: Flask, key_id: str) -> None:
    assert "MODEL" in blocks(app, "stranger")["codex"]["text"]
    assert 'model = "small"' in blocks(app)["codex"]["text"]
    assert 'model = "other"' in blocks(app, query="?model=other")["codex"]["text"]
    answer = sign_in(app, "owner").get("/api/connect?model=nowhere")
    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, "model")


def test_a_model_that_the_key_cannot_call_is_refused(app: Flask, key_id: str) -> None:
    answer = sign_in(app, "owner").get(f"/api/connect?key_id={key_id}&model=other")
    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, "model")


def test_somebody_elses_key_is_not_there(app: Flask, key_id: str) -> None:
    for path in ("/api/connect", "/api/connect/first-call"):
        assert sign_in(app, "stranger").get(f"{path}?key_id={key_id}").status_code == 404


def test_a_model_that_does_not_suit_leaves_a_client_without_a_block(app: Flask, people: People, key_id: str) -> None:
    transaction(make_model, people.admin, "vectors", capabilities=["embeddings"])
    told = blocks(app, query="?model=vectors")
    assert told["codex"]["text"] == "" and "vectors" in told["curl"]["text"]


def test_the_first_call_is_awaited_then_refused_then_answered(app: Flask, key_id: str, wire: redis.Redis) -> None:
    owner, path = sign_in(app, "owner"), f"/api/connect/first-call?key_id={key_id}"
    nothing = {"state": "waiting", "request_id": None, "at": None, "reason": None}
    assert owner.get(path).get_json() == nothing

    def note(field: str, **fields: Any) -> None:
        call = LastCall(at_ms=clock.now_ms(), agent="codex", **fields)
        wire.hset(store.last_calls(key_id), field, msgspec.json.encode(call))

    note("refused:codex", request_id="r-1", status=404, message="No such model.")
    refused = owner.get(path).get_json()
    assert (refused["state"], refused["request_id"], refused["reason"]) == ("failed", "r-1", "No such model.")
    note("ok:codex", request_id="r-2", status=200)
    answered = owner.get(path).get_json()
    assert (answered["state"], answered["request_id"], answered["reason"]) == ("ok", "r-2", None)
    assert answered["at"].endswith("Z")
    assert owner.get(f"{path}&client=codex").get_json() == answered
    assert owner.get(f"{path}&client=claude-code").get_json() == nothing


@pytest.mark.parametrize(("query", "field"), [("", "key_id"), ("?key_id={key}&client=word", "client")])
def test_a_query_that_is_not_usable_names_its_field(app: Flask, key_id: str, query: str, field: str) -> None:
    answer = sign_in(app, "owner").get("/api/connect/first-call" + query.replace("{key}", key_id))
    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, field)
