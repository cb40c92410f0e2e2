"""`POST /v1/estimate` tells what the same request then holds, asks no upstream and uses nothing up."""

from __future__ import annotations

from typing import Any

import pytest

from app.metering import money
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import Upstream


def words(**fields: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": "one two three"}], **fields}


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 5}, {"max_tokens": 7, "n": 3}, {"n": 2}, {"tools": [TOOL]}])
@pytest.mark.parametrize("limit", [None, "10", "0.001"])
def test_it_tells_what_the_request_then_holds(
    gate: Gate, client: Client, fields: dict[str, Any], limit: str | None
) -> None:
    if limit is not None:
        gate.limit("user", "person-1", limit)
    told = client("/v1/estimate", words(**fields)).json
    answer = client("/v1/chat/completions", words(**fields))
    assert told["affordable"] == (answer.status == 200)
    if answer.status == 200:
        (event,) = gate.events()
        assert money.parse(told["hold"]) == event.hold_nano
        assert event.cost_nano <= money.parse(told["hold"])
        assert 0 < money.parse(told["likely_cost"]) <= money.parse(told["hold"])
        assert (told["object"], told["model"], told["currency"], told["limited_by"]) == (
            "estimate",
            "small",
            "USD",
            None,
        )
    else:
        assert told["limited_by"] == {"scope": "user", "id": "ada", "remaining": limit}


def test_near_the_end_of_a_budget_it_tells_the_same_shortened_answer_as_the_request(gate: Gate, client: Client) -> None:
    gate.limit("user", "person-1", "0.0015")  # less than the default may cost
    for _ in range(3):
        told = client("/v1/estimate", words()).json
        answer = client("/v1/chat/completions", words())
        assert answer.status == 200
        assert answer.headers["x-portico-max-tokens"] == str(told["completion_tokens_bound"])
        assert gate.events()[-1].hold_nano == money.parse(told["hold"])
    assert told["completion_tokens_bound"] == 16  # its answers have three words


def test_it_is_free_and_asks_no_upstream(gate: Gate, upstream: Upstream, client: Client) -> None:
    gate.limit("user", "person-1", "10", rpm=1)
    for _ in range(3):
        assert client("/v1/estimate", words()).status == 200
    assert upstream.requests == []
    assert gate.counted("user", "person-1") == (0, 0)
    assert client("/v1/chat/completions", words()).status == 200


def test_a_response_is_estimated_as_it_is_held_for(gate: Gate, client: Client) -> None:
    gate.limit("user", "person-1", "10")
    asked = {"model": "small", "input": "one two three", "tools": [{"type": "web_search"}]}
    told = client("/v1/estimate", {"endpoint": "/v1/responses", "request": asked}).json
    assert client("/v1/responses", asked).status == 200
    (event,) = gate.events()
    assert money.parse(told["hold"]) == event.hold_nano and event.cost_nano <= money.parse(told["likely_cost"])


def test_other_paths_are_estimated_by_their_names(client: Client) -> None:
    asked = {"endpoint": "/v1/embeddings", "request": {"model": "small", "input": "one two three"}}
    told = client("/v1/estimate", asked).json
    assert told["completion_tokens_bound"] == 0
    assert told["prompt_tokens_bound"] > 3
    assert client("/v1/estimate", {"request": words(max_tokens=5, n=2)}).json["completion_tokens_bound"] == 10


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "nowhere", "messages": words()["messages"]}, 404, "model"), ({"model": "small"}, 400, "messages"),
        ({"endpoint": "/v1/models", "request": {}}, 400, "endpoint"), ({"endpoint": 5, "request": {}}, 400, "endpoint"),
        ({"endpoint": "/v1/audio/transcriptions", "request": {}}, 400, "endpoint"), ({"request": []}, 400, None),
        ({"endpoint": "/v1/embeddings", "request": {"model": "small"}}, 400, "input"), (b"{", 400, None),
    ],
)  # fmt: skip
def test_errors_are_those_of_the_endpoint_itself(client: Client, body: Any, status: int, param: str | None) -> None:
    answer = client("/v1/estimate", body)
    assert (answer.status, answer.param) == (status, param)


def test_what_has_no_price_is_not_affordable_under_a_budget(gate: Gate, client: Client) -> None:
    gate.model("gift", "up", price=None)
    holder = Client(gate, gate.key())
    assert holder("/v1/estimate", words(model="gift")).json["affordable"] is True
    gate.limit("organisation", "default", "10")
    told = holder("/v1/estimate", words(model="gift")).json
    assert (told["affordable"], told["hold"]) == (False, "0")
    assert told["limited_by"]["scope"] == "organisation"
