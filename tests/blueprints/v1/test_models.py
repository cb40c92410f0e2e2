"""`GET /v1/models`: exactly what a key may call, in one answer that OpenAI's and Anthropic's readers understand."""

from __future__ import annotations

import anthropic
import openai
import pytest

from app.directory import LongContext, Price
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate

PRICE = Price(
    id="p", rates={"input_per_mtok": 150_000_000, "output_per_mtok": 1}, tiers={"flex": {"input_per_mtok": 75_000_000}},
    long_context=LongContext(above_prompt_tokens=200_000, rates={"input_per_mtok": 300_000_000}),
)  # fmt: skip


def test_both_sdks_read_the_same_list(gate: Gate) -> None:
    gate.model("claude-small", "up", display_name="Claude Small", context_window=1000, max_output_tokens=100)
    key = gate.key("claude-small", "small")
    with openai.OpenAI(api_key=key, base_url=f"{gate.url}/v1", _strict_response_validation=True) as one:
        assert [model.id for model in one.models.list()] == ["claude-small", "small"]
        assert one.models.retrieve("claude-small").owned_by == "portico"
    with anthropic.Anthropic(api_key=key, base_url=gate.url) as other:
        models = list(other.models.list(limit=1000))
        assert [(model.id, model.display_name, model.type) for model in models] == [
            ("claude-small", "Claude Small", "model"), ("small", "small", "model"),
        ]  # fmt: skip
        assert models[0].created_at.year == 1970
        assert (models[0].max_input_tokens, models[0].max_tokens) == (1000, 100)


def test_prices_and_capabilities_are_told(gate: Gate) -> None:
    gate.model("priced", "up", price=PRICE, features=("tools",), capabilities=("chat", "images"))
    told = Client(gate, gate.key())("/v1/models/priced").json
    assert (told["capabilities"], told["features"]) == (["chat", "images"], ["tools"])
    assert told["pricing"] == {
        "currency": "USD", "input_per_mtok": "0.15", "output_per_mtok": "0.000000001",
        "tiers": {"flex": {"input_per_mtok": "0.075"}},
        "long_context": {"above_prompt_tokens": 200_000, "input_per_mtok": "0.3"},
    }  # fmt: skip
    gate.model("unpriced", "up", price=None)
    assert Client(gate, gate.key())("/v1/models/unpriced").json["pricing"] is None


@pytest.mark.parametrize(("provider", "expected"), [("up", ["small"]), ("provider-echo", ["echo-1"]), ("none", [])])
def test_the_list_narrows_to_a_provider(client: Client, provider: str, expected: list[str]) -> None:
    told = client(f"/v1/models?provider={provider}").json
    assert [model["id"] for model in told["data"]] == expected
    assert (told["first_id"], told["has_more"]) == (expected[0] if expected else None, False)
