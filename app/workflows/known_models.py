"""Known limits and US-dollar prices of vendors' models, used to pre-fill the import form.

A snapshot (`tools/model_catalogue.py`), never a bill: requests are charged by the price an admin has published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

PATH = Path(__file__).parent / "model_catalogue" / "models.json"
CURRENCY = "USD"

# Vendors to look up for each kind, its own first. Other kinds serve their own models.
_VENDORS: dict[str, tuple[str, ...]] = {
    "azure": ("azure", "openai"),
    "anthropic": ("anthropic",),
    "deepseek": ("deepseek",),
    "gemini": ("gemini",),
    "groq": ("groq",),
    "mistral": ("mistral",),
    "openai": ("openai",),
}
_RESELLERS = ("litellm", "openrouter", "other")  # they name other vendors' models `vendor/model`
_NAMES = {"google": "gemini", "mistralai": "mistral"}  # their names for vendors
_GUESSES = (
    ("embeddings", re.compile(r"embed", re.IGNORECASE)),
    ("transcription", re.compile(r"whisper|transcri", re.IGNORECASE)),
    ("speech", re.compile(r"\btts\b", re.IGNORECASE)),
    ("images", re.compile(r"dall-e|\bimage\b|stable-diffusion|flux", re.IGNORECASE)),
)


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as its vendor describes it. Amounts are decimals, by the members of a price."""

    capability: str = "chat"
    context_window: int | None = None
    max_output_tokens: int | None = None
    features: tuple[str, ...] = ()
    price: dict[str, str] = {}
    tiers: dict[str, dict[str, str]] = {}
    long_context: dict[str, Any] | None = None


class _Catalogue(msgspec.Struct):
    models: dict[str, dict[str, KnownModel]]


@cache
def _models() -> dict[str, dict[str, KnownModel]]:
    return msgspec.json.decode(PATH.read_bytes(), type=_Catalogue).models


def find(kind: str, id: str) -> KnownModel | None:
    """Returns the known data of the model that a provider of this kind calls `id`, or None."""
    for vendor, name in _places(kind, id):
        found = _models().get(vendor, {}).get(name)
        if found is not None:
            return found
    return None


def _places(kind: str, id: str) -> Iterator[tuple[str, str]]:
    for vendor in _VENDORS.get(kind, ()):
        yield vendor, id
    if kind in _RESELLERS:
        vendor, slash, name = id.partition("/")
        if slash:
            yield _NAMES.get(vendor, vendor), name
        elif kind != "openrouter":
            for other in _VENDORS:
                yield other, id


def guessed_capability(id: str) -> str:
    """Guesses the capability of an unknown model from its name."""
    return next((capability for capability, pattern in _GUESSES if pattern.search(id)), "chat")
