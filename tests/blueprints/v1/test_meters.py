"""The meter in the shapes of LiteLLM and OpenRouter, as status lines read it with the user's own key."""

from __future__ import annotations

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate


def spend(client: Client) -> None:
    assert client.chat(max_tokens=3).status == 200


def test_litellms_key_info_tells_spend_and_budget(gate: Gate, client: Client) -> None:
    gate.limit("user", "person-1", "2.5", period="month", rpm=7)
    spend(client)
    told = client("/key/info").json
    spent, _ = gate.counted("user", "person-1", gate.events()[0].scopes[2][2])
    assert told["info"]["spend"] == spent / 1e9 > 0
    assert (told["info"]["max_budget"], told["info"]["budget_duration"]) == (2.5, "30d")
    assert told["info"]["budget_reset_at"].endswith("-01T00:00:00Z")
    assert told["info"]["models"] == ["echo-1", "small"]
    assert told["key"].startswith("key-")


def test_openrouters_key_tells_limit_and_use(gate: Gate, client: Client) -> None:
    gate.limit("user", "person-1", "2.5", period="day")
    spend(client)
    told = client("/api/v1/key").json["data"]
    assert told["limit"] == 2.5
    assert told["limit_reset"] == "daily"
    assert 0 < told["usage"] == told["usage_daily"] < 0.01
    assert told["limit_remaining"] == round(2.5 - told["usage"], 9)
    assert told["usage_monthly"] is None


def test_the_keys_own_budget_comes_first_and_then_the_tightest(gate: Gate, client: Client) -> None:
    assert client("/key/info").json["info"]["max_budget"] is None
    gate.limit("organisation", "default", "5")
    gate.limit("user", "person-1", "7")
    assert client("/key/info").json["info"]["max_budget"] == 5
    key_id = client("/key/info").json["key"]
    gate.limit("key", key_id, "9")
    assert client("/key/info").json["info"]["max_budget"] == 9
    assert client("/api/v1/key").json["data"]["limit"] == 9


def test_they_need_a_key_and_never_count_as_use(gate: Gate, client: Client) -> None:
    gate.limit("user", "person-1", "2.5", rpm=1)
    for path in ("/key/info", "/api/v1/key"):
        assert Client(gate, None)(path).status == 401
        assert Client(gate, "sk-wrong")(path).status == 401
        for _ in range(3):
            assert client(path).status == 200
        assert client(path, {}).status == 405
    assert client.chat().status == 200
