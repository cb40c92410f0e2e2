"""A key's owner is told how its calls began: by which client, and why one was refused."""

from __future__ import annotations

import msgspec
import pytest

from app import store
from app.metering.usage import LastCall
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.waiting import until

pytestmark = pytest.mark.both_lanes


def calls(gate: Gate, key_id: str, count: int) -> dict[str, LastCall]:
    """What is kept of a key's calls, once it is so many."""

    def kept() -> dict[str, LastCall]:
        found = gate.redis.hgetall(store.last_calls(key_id))
        return {field.decode(): msgspec.json.decode(raw, type=LastCall) for field, raw in found.items()}

    until(lambda: len(kept()) >= count, gate.log)
    return kept()


def test_answers_and_refusals_are_told_by_client(gate: Gate) -> None:
    client = Client(gate, gate.key("small", id="key-told"))
    client("/v1/models", **{"User-Agent": "curl/8.5.0"})  # costs nothing and calls no model
    answered = client.chat(stream=True)
    first = client("/v1/chat/completions", b"{", **{"User-Agent": "codex_exec/0.171.0 (Debian)"})
    misdirected = client("/v1/v1/chat/completions", b"{}", **{"User-Agent": "OpenAI/JS 6.9.1"})
    assert (answered.status, first.status, misdirected.status) == (200, 400, 404)
    told = calls(gate, "key-told", 3)
    assert {field: (call.request_id, call.status) for field, call in told.items()} == {
        "ok:": (answered.headers["x-request-id"], 200),
        "refused:codex": (first.headers["x-request-id"], 400),
        "refused:openai-node": (misdirected.headers["x-request-id"], 404),
    }
    assert "/v1/chat/completions" in (told["refused:openai-node"].message or "")


def test_a_model_that_the_key_may_not_use_is_told_with_the_way_out(gate: Gate) -> None:
    client = Client(gate, gate.key("echo-1", id="key-unsubscribed"))
    assert client.chat(model="small").status == 404
    told = calls(gate, "key-unsubscribed", 1)["refused:"]
    assert told.code == "model_not_found"
    assert told.message and f"{gate.url}/models" in told.message


def test_counting_tokens_is_no_first_call(gate: Gate) -> None:
    client = Client(gate, gate.key("small", id="key-counting"))
    body = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
    assert client("/v1/messages/count_tokens", body).status == 200
    refused = client("/v1/messages", {"model": "small"})
    assert refused.status == 400
    assert set(calls(gate, "key-counting", 1)) == {"refused:"}
