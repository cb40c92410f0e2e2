"""The catalogue that imports are filled in from: whole, usable as it is, and only where it can be right."""

from __future__ import annotations

import msgspec
import pytest

from app.metering import money
from app.metering.quantities import PRICES
from app.workflows import known_models
from app.workflows.known_models import find, guessed_capability

MODELS = known_models._models()


def test_the_file_stays_small_and_names_its_source() -> None:
    content = known_models.PATH.read_bytes()
    assert len(content) < 200_000
    assert msgspec.json.decode(content)["source"]["licence"] == "MIT"
    assert b"MIT License" in (known_models.PATH.parent / "LICENSE").read_bytes()


@pytest.mark.parametrize("vendor", MODELS)
def test_every_amount_can_be_a_price(vendor: str) -> None:
    for known in MODELS[vendor].values():
        long = dict(known.long_context or {})
        assert long.pop("above_prompt_tokens", 1) > 0
        for rates in (known.price, *known.tiers.values(), long):
            assert rates.keys() <= set(PRICES)
            assert all(money.parse(amount) >= 0 for amount in rates.values())
        assert all(0 < tokens <= 10_000_000 for tokens in (known.context_window, known.max_output_tokens) if tokens)


def test_the_price_of_a_model_is_its_vendor_s() -> None:
    known = find("openai", "gpt-4o")
    assert known is not None and known.context_window == 128_000
    assert (known.price["input_per_mtok"], known.price["output_per_mtok"]) == ("2.5", "10")


@pytest.mark.parametrize(
    ("kind", "id", "is_known"),
    [
        ("openrouter", "openai/gpt-4o", True),
        ("openrouter", "openai/gpt-4o:free", False),
        ("openrouter", "google/gemini-2.5-pro", True),
        ("openrouter", "gpt-4o", False),
        ("litellm", "gpt-4o", True),
        ("other", "mistral-large-latest", True),
        ("azure", "gpt-4o", True),
        ("vllm", "gpt-4o", False),
        ("ollama", "gpt-4o", False),
        ("openai", "no-such-model", False),
    ],
)
def test_a_model_is_looked_up_where_it_can_be_that_one(kind: str, id: str, is_known: bool) -> None:
    assert (find(kind, id) is not None) is is_known


@pytest.mark.parametrize(
    ("id", "capability"),
    [
        ("nomic-embed-text", "embeddings"),
        ("whisper-large-v3", "transcription"),
        ("tts-1-hd", "speech"),
        ("gpt-image-1", "images"),
        ("llama3.3:70b", "chat"),
    ],
)
def test_what_an_unknown_model_can_do_is_guessed_by_its_name(id: str, capability: str) -> None:
    assert guessed_capability(id) == capability
