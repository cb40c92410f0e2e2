"""A subscription's end is the gateway's own to keep: no job has to run for it."""

from __future__ import annotations

import pytest

from app import clock
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.waiting import until

pytestmark = pytest.mark.both_lanes

MISSING = (404, "invalid_request_error", "model_not_found")


def test_a_subscription_that_has_ended_pays_for_nothing(gate: Gate) -> None:
    client = Client(gate, gate.key(ends_ms={"small": clock.now_ms() - 1}))
    assert client.chat().error == MISSING
    assert client("/v1/embeddings", {"model": "small", "input": "a"}).error == MISSING
    assert client("/v1/models/small").error == MISSING
    assert [model["id"] for model in client("/v1/models").json["data"]] == ["echo-1"]
    told = client("/v1/key").json
    assert told["models"] == ["echo-1"]
    assert client.chat(model="echo-1").status == 200


def test_it_ends_at_the_moment_with_a_key_that_is_in_use(gate: Gate) -> None:
    client = Client(gate, gate.key(ends_ms={"small": clock.now_ms() + 2500}))
    assert client.chat().status == 200
    until(lambda: client.chat().status == 404)
