"""What Gemini tells of usage. Cached tokens are part of its prompt; thoughts, and what its tools put into the prompt, stand
beside the other figures. Each is counted once."""

from __future__ import annotations

import json
from typing import Any

from app.providers import usage
from app.providers.lenient_json import read_json

PROMPT, CACHED, TOOLS = "promptTokenCount", "cachedContentTokenCount", "toolUsePromptTokenCount"
ANSWER, THOUGHTS, TOTAL = "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"
# Tokens that have prices of their own, and the quantities that they are in a prompt and in an answer.
MODALITIES = {
    "AUDIO": ("audio_input_tokens", "audio_output_tokens"), "IMAGE": ("image_input_tokens", "image_output_tokens"),
}  # fmt: skip
_TRAFFIC = {
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_OFFPEAK": "offpeak",
    "PROVISIONED_THROUGHPUT": "provisioned",
}


def read(raw: bytes) -> tuple[usage.Told, bytes]:
    """What `usageMetadata` tells, and the service tier as JSON, null where it does not tell that. Nothing is raised."""
    said = read_json(raw)
    if not isinstance(said, dict):
        return usage.Told(), b"null"
    prompt, tools, answer, thoughts, total = (
        usage.count_in(said.get(name)) for name in (PROMPT, TOOLS, ANSWER, THOUGHTS, TOTAL)
    )
    tools, thoughts = tools or 0, thoughts or 0
    if prompt is not None and total is not None:
        if answer is None:  # a figure of 0 is left out
            answer = max(total - prompt - tools - thoughts, 0)
        elif total < prompt + tools + answer + thoughts:  # then one of them is within another
            if total == prompt + answer + thoughts:
                tools = 0
            elif total == prompt + tools + answer:
                thoughts, answer = min(thoughts, answer), max(answer - thoughts, 0)
    more = {"reasoning_tokens": thoughts}
    of_prompt, of_tools, of_cache, of_answer = (
        _by_modality(said.get(name))
        for name in (
            "promptTokensDetails",
            "toolUsePromptTokensDetails",
            "cacheTokensDetails",
            "candidatesTokensDetails",
        )
    )
    for modality, (inward, outward) in MODALITIES.items():
        read_in = of_prompt.get(modality, 0) + (of_tools.get(modality, 0) if tools else 0)
        more[inward] = max(read_in - of_cache.get(modality, 0), 0)  # what was cached is charged as that
        more[outward] = of_answer.get(modality, 0)
    return (
        usage.Told(
            prompt=None if prompt is None else prompt + tools,
            cached=usage.count_in(said.get(CACHED)),
            completion=None if answer is None else answer + thoughts,
            total=total,
            more={name: count for name, count in more.items() if count},
        ),
        _tier(said),
    )


def _by_modality(details: Any) -> dict[str, int]:
    """The tokens of each modality; one may be told several times."""
    found: dict[str, int] = {}
    for one in details if isinstance(details, list) else ():
        if isinstance(one, dict) and isinstance(modality := one.get("modality"), str):
            found[modality] = found.get(modality, 0) + (usage.count_in(one.get("tokenCount")) or 0)
    return found


def _tier(said: dict[str, Any]) -> bytes:
    tier, traffic = said.get("serviceTier"), said.get("trafficType")
    if isinstance(tier, str):
        return json.dumps(tier.lower().removeprefix("service_tier_")).encode()
    return json.dumps(_TRAFFIC.get(traffic, "standard") if isinstance(traffic, str) else None).encode()
