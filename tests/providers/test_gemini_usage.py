"""What Gemini tells of usage costs what a person works out by hand, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given

from app.directory import LongContext, Price
from app.metering import pricing
from app.metering.quantities import NAMES
from app.providers import gemini_usage
from tests.providers.contract import Recording, Stage, playing
from tests.providers.test_openai import values

# Dollars a million tokens, which are thousandths of a nano-dollar a token times a million.
PRICE = Price(
    id="price",
    rates={"input_per_mtok": 1_250_000_000, "cached_input_per_mtok": 125_000_000, "output_per_mtok": 10_000_000_000,
           "audio_input_per_mtok": 3_000_000_000, "image_input_per_mtok": 2_000_000_000,
           "audio_output_per_mtok": 20_000_000_000, "image_output_per_mtok": 120_000_000_000},
    tiers={
        "flex": {"input_per_mtok": 625_000_000, "cached_input_per_mtok": 62_500_000, "output_per_mtok": 5_000_000_000},
        "priority": {"input_per_mtok": 2_250_000_000, "cached_input_per_mtok": 225_000_000,
                     "output_per_mtok": 18_000_000_000},
    },
    long_context=LongContext(
        above_prompt_tokens=200_000,
        rates={"input_per_mtok": 2_500_000_000, "cached_input_per_mtok": 250_000_000, "output_per_mtok": 15_000_000_000},
    ),
)  # fmt: skip


class Case(NamedTuple):
    """Usage as it was told last, what it costs in nano-dollars, and what a stream told before."""

    name: str
    told: dict[str, Any]
    cost_nano: int
    before: tuple[dict[str, Any], ...] = ()
    estimated: bool = False


def of(
    prompt: int, answer: int | None = None, thoughts: int = 0, cached: int = 0, tools: int = 0, **more: Any
) -> dict[str, Any]:
    """Figures of 0 are left out, as Gemini leaves them out."""
    told = {"promptTokenCount": prompt, "cachedContentTokenCount": cached, "candidatesTokenCount": answer,
            "toolUsePromptTokenCount": tools, "thoughtsTokenCount": thoughts,
            "totalTokenCount": prompt + (answer or 0) + thoughts + tools}  # fmt: skip
    return {name: count for name, count in told.items() if count} | more


def each(**counts: int) -> list[dict[str, Any]]:
    return [{"modality": modality, "tokenCount": count} for modality, count in counts.items()]


CASES = [
    Case("short", of(8, 3), 40_000),
    Case("one of each", of(2, 1, 1, 1), 21_375),
    Case("thoughts stand beside the answer", of(40, 300, 1800), 21_050_000),
    Case("thoughts and no answer", of(40, None, 1800), 18_050_000),
    Case("thoughts that the answer has within it", of(40, 300) | {"thoughtsTokenCount": 100}, 3_050_000),
    Case("the answer is left out", {"promptTokenCount": 40, "thoughtsTokenCount": 100, "totalTokenCount": 160}, 1_250_000),
    Case("the prompt has what was cached within it", of(2060, 100, 0, 2048), 1_271_000),
    Case("all of it was cached", of(2048, 100, 0, 2048), 1_256_000),
    Case("what tools read stands beside the prompt", of(100, 50, 0, 0, 900), 1_750_000),
    Case("what tools read, with thoughts and a cache", of(1000, 50, 150, 400, 600), 3_550_000),
    Case("what tools read within the prompt", of(1000, 50) | {"toolUsePromptTokenCount": 600}, 1_750_000),
    Case("an agent's first request", of(31_210, 118, 400), 44_192_500),
    Case("an agent's second request", of(32_054, 260, 0, 31_207), 7_559_625),
    Case("a sound", of(500, 20, promptTokensDetails=each(TEXT=100, AUDIO=400)), 1_525_000),
    Case("a picture", of(1390, 20, promptTokensDetails=each(TEXT=100, IMAGE=1290)), 2_905_000),
    Case("a film and a document cost as text", of(1000, 20, promptTokensDetails=each(TEXT=100, VIDEO=800, DOCUMENT=100)),
         1_450_000),
    Case("a sound of which a part was cached",
         of(1000, 10, 0, 600, promptTokensDetails=each(TEXT=200, AUDIO=800), cacheTokensDetails=each(TEXT=100, AUDIO=500)),
         1_200_000),
    Case("a picture that a tool has read",
         of(100, 10, 0, 0, 300, promptTokensDetails=each(TEXT=100), toolUsePromptTokensDetails=each(TEXT=42, IMAGE=258)),
         793_500),
    Case("a picture is drawn", of(20, 1300, candidatesTokensDetails=each(TEXT=10, IMAGE=1290)), 154_925_000),
    Case("a sound is made", of(20, 500, candidatesTokensDetails=each(AUDIO=500)), 10_025_000),
    Case("a modality is told in two parts", of(500, 20, promptTokensDetails=each(AUDIO=150) + each(AUDIO=250, TEXT=100)),
         1_525_000),
    Case("at the edge of a long prompt", of(200_000, 10, 0, 50_000), 193_850_000),
    Case("a long prompt", of(200_001, 10, 90, 50_001), 389_000_250),
    Case("a prompt that tools made long", of(150_000, 10, 0, 0, 50_001), 500_152_500),
    Case("served at priority", of(1000, 500, 0, 100, serviceTier="priority"), 11_047_500),
    Case("served at priority, as constants are spelled", of(1000, 500, serviceTier="SERVICE_TIER_PRIORITY"), 11_250_000),
    Case("served in flexible traffic", of(1000, 500, trafficType="ON_DEMAND_FLEX"), 3_125_000),
    Case("served in usual traffic", of(1000, 500, trafficType="ON_DEMAND"), 6_250_000),
    Case("a tier that the price does not have", of(1000, 500, serviceTier="batch"), 6_250_000),
    Case("each chunk tells all so far", of(9, 30, 60, 4), 906_750, before=(of(9), of(9, None, 40, 4), of(9, 10, 60, 4))),
    Case("only the last chunk tells", of(9, 30), 311_250, before=({}, {})),
    Case("a first word that was too high", of(8, 3), 40_000, before=(of(80),)),
]  # fmt: skip


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with playing("gemini") as made:
        yield made


def recording(case: Case, stream: bool) -> Recording:
    def chunk(text: str, told: dict[str, Any], **more: Any) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0} | more
        return {"candidates": [candidate]} | ({"usageMetadata": told} if told else {})

    chunks = [chunk("Some words. ", told) for told in case.before] if stream else []
    chunks.append(chunk("And the last.", case.told, finishReason="STOP"))
    said = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) if stream else json.dumps(chunks[-1]) + "\n"
    kind = "text/event-stream" if stream else "application/json"
    asks = {"max_tokens": 100_000, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return Recording(
        case.name, asks, f"HTTP/1.1 200 OK\nContent-Type: {kind}\n\n{said}".encode(), is_http=True, hangs_up=False, gives={},
        capability="chat", settings={}, deployment={}, asked=None, endpoint=None,
    )  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_usage_costs_what_a_person_works_out(stage: Stage, case: Case, stream: bool) -> None:
    used = stage.play(recording(case, stream), neutral=True).used
    assert used is not None
    counts = {name: count for name, count in used.items() if name in NAMES}
    tier = pricing.tier_of(PRICE, pricing.TokenBound(1000, 100_000), used.get("service_tier"))
    assert pricing.cost_nano(PRICE, counts, tier) == case.cost_nano
    assert used["estimated"] is case.estimated


@given(values, values)
def test_no_usage_is_too_odd_to_be_read(odd: Any, inner: Any) -> None:
    names = ("promptTokenCount", "candidatesTokenCount", "promptTokensDetails", "serviceTier", "trafficType")
    for told in (
        odd,
        *({name: inner} for name in names),
        {"promptTokensDetails": [odd, {"modality": inner, "tokenCount": odd}]},
    ):
        read, tier = gemini_usage.read(json.dumps(told).encode())
        assert tier
        assert all(
            count is None or count >= 0 for count in (read.prompt, read.cached, read.completion, *read.more.values())
        )
