"""The catalogue is what the price list says, in the portal's own words, exact to the last digit."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tools import model_catalogue
from tools.model_catalogue import build, known


def said(**values: Any) -> dict[str, Any]:
    return json.loads(json.dumps({"litellm_provider": "openai", "mode": "chat"} | values), parse_float=Decimal)


def test_amounts_are_told_for_a_million_without_rounding() -> None:
    found = known({"m": said(input_cost_per_token=1.5e-07, output_cost_per_token=6e-07, max_input_tokens=128_000)})
    assert found == {
        "openai": {
            "m": {
                "capability": "chat",
                "context_window": 128_000,
                "price": {"input_per_mtok": "0.15", "output_per_mtok": "0.6"},
            }
        }
    }


def test_tiers_and_long_prompts_have_their_own() -> None:
    found = known({
        "m": said(
            input_cost_per_token=1e-06, input_cost_per_token_priority=2e-06, input_cost_per_token_above_200k_tokens=3e-06
        )
    })["openai"]["m"]  # fmt: skip
    assert found["tiers"] == {"priority": {"input_per_mtok": "2"}}
    assert found["long_context"] == {"above_prompt_tokens": 200_000, "input_per_mtok": "3"}


def test_a_price_of_nothing_is_none() -> None:
    (found,) = known({"m": said(input_cost_per_token=0, output_cost_per_token=0.0)})["openai"].values()
    assert "price" not in found


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("ft:m", {}),
        ("azure/eu/m", {"litellm_provider": "azure"}),
        ("1024-x-1024/m", {}),
        ("m", {"litellm_provider": "somebody"}),
        ("m", {"mode": "realtime"}),
        ("m", {"mode": None}),
    ],
)
def test_what_nobody_lists_is_left_out(key: str, values: dict[str, Any]) -> None:
    assert known({key: said(**values)}) == {}


def test_another_package_than_the_pinned_one_is_refused(tmp_path: Any) -> None:
    wheel = tmp_path / "litellm.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(SystemExit, match="differs from the pinned one"):
        build(wheel)


def test_the_committed_file_is_of_the_pinned_version() -> None:
    source = json.loads((model_catalogue.FOLDER / "models.json").read_text())["source"]
    assert (source["name"], source["version"]) == (model_catalogue.PACKAGE, model_catalogue.VERSION)
