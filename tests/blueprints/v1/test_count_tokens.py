"""Counting is free for whoever may use messages, and refused as they are."""

from __future__ import annotations

import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import Upstream

PATH = "/v1/messages/count_tokens"
ASKS = {"model": "small", "messages": [{"role": "user", "content": "one two three"}]}

pytestmark = pytest.mark.both_lanes


def test_it_costs_nothing_and_counts_as_no_use(gate: Gate, client: Client, key: str, upstream: Upstream) -> None:
    gate.limit("key", f"key-{key[-6:]}", "0", rpm=1)
    replies = [client(f"{PATH}?beta=true", ASKS) for _ in range(3)]
    assert {reply.status for reply in replies} == {200} and len({reply.json["input_tokens"] for reply in replies}) == 1
    assert replies[0].headers["request-id"] == replies[0].headers["x-request-id"]
    assert not upstream.requests and gate.counted("key", f"key-{key[-6:]}") == (0, 0)


def test_a_key_that_is_not_made_for_chat_counts_nothing(gate: Gate) -> None:
    reply = Client(gate, gate.key(scopes=("embeddings",)))(PATH, ASKS)
    assert (reply.status, reply.json["error"]["type"]) == (403, "permission_error")


def test_a_model_that_is_not_there_is_refused_as_by_messages(client: Client) -> None:
    reply = client(PATH, ASKS | {"model": "unknown"})
    assert (reply.status, reply.json["error"]["type"]) == (403, "permission_error")
