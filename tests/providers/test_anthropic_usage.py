"""What Anthropic tells of usage costs what a person works out by hand, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from app.directory import LongContext, Price
from app.metering import pricing
from app.metering.quantities import NAMES
from app.providers.anthropic_usage import Bill, usage_object
from app.providers.base import Usage
from tests.providers.contract import Recording, Stage, playing

# Dollars a million tokens, which are thousandths of a nano-dollar a token times a million.
PRICE = Price(
    id="price",
    rates={"input_per_mtok": 5_000_000_000, "cached_input_per_mtok": 500_000_000, "cache_write_per_mtok": 6_250_000_000,
           "cache_write_1h_per_mtok": 10_000_000_000, "output_per_mtok": 25_000_000_000},
    tiers={
        "fast": {"input_per_mtok": 30_000_000_000, "cached_input_per_mtok": 3_000_000_000, "output_per_mtok": 150_000_000_000},
        "priority": {"input_per_mtok": 7_000_000_000, "cached_input_per_mtok": 700_000_000,
                     "cache_write_per_mtok": 8_750_000_000, "cache_write_1h_per_mtok": 14_000_000_000,
                     "output_per_mtok": 35_000_000_000},
    },
    long_context=LongContext(
        above_prompt_tokens=200_000,
        rates={"input_per_mtok": 10_000_000_000, "cached_input_per_mtok": 1_000_000_000,
               "cache_write_per_mtok": 12_500_000_000, "cache_write_1h_per_mtok": 20_000_000_000,
               "output_per_mtok": 37_500_000_000},
    ),
)  # fmt: skip


class Case(NamedTuple):
    """A usage object as it was told last, what it costs in nano-dollars, and what a stream told first, if that was less."""

    name: str
    told: dict[str, Any]
    cost_nano: int
    first: dict[str, Any] = {}
    estimated: bool = False


def of(input: int, output: int, read: int = 0, short: int = 0, long: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "input_tokens": input, "cache_creation_input_tokens": short + long, "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": output, "service_tier": "standard", **more,
    }  # fmt: skip


CASES = [
    Case("short", {"input_tokens": 9, "output_tokens": 3}, 120_000),
    Case("one of each", of(1, 1, 1, 1, 1), 46_750),
    Case("read from the cache", of(12, 100, 2048), 3_584_000),
    Case("written for five minutes", of(3, 7, 0, 4096), 25_790_000),
    Case("written for an hour", of(3, 7, 0, 0, 4096), 41_150_000),
    Case("read and written for both", of(4, 812, 18_000, 1500, 2500), 63_695_000),
    Case("an agent's first request", of(3, 118, 0, 31_207), 198_008_750),
    Case("an agent's second request", of(5, 260, 31_207, 842), 27_391_000),
    Case("thought is output", of(40, 2100, output_tokens_details={"thinking_tokens": 1800}), 52_700_000),
    Case("no cache is null", {"input_tokens": 77, "cache_read_input_tokens": None, "cache_creation": None,
                              "cache_creation_input_tokens": None, "output_tokens": 12}, 685_000),
    Case("nobody tells how long it is kept",
         {"input_tokens": 9, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 100, "output_tokens": 3},
         748_500, estimated=True),
    Case("the parts are more than their sum", of(10, 20, 0, 300, 700) | {"cache_creation_input_tokens": 0}, 9_425_000),
    Case("at the edge of a long prompt", of(150_000, 10, 50_000), 775_250_000),
    Case("a long prompt by what was read", of(150_001, 10, 49_000, 1000), 1_561_885_000),
    Case("a long prompt and a long answer", of(199_999, 64_000, 1, 1), 4_400_003_500),
    Case("served at priority", of(1000, 500, 100, 10, 1, service_tier="priority"), 24_671_500),
    Case("served fast", of(1000, 500, speed="fast"), 105_000_000),
    Case("served at the standard speed", of(1000, 500, speed="standard"), 17_500_000),
    Case("a tier that the price does not have", of(1000, 500, service_tier="batch"), 17_500_000),
    Case("a first word that was too low", of(30, 55, 900, 60), 2_350_000, first=of(28, 1, 900, 50)),
    Case("a first word that was too high", of(9, 3), 120_000, first=of(900, 1, 900, 900)),
    Case("the end tells of the output alone", {"output_tokens": 55}, 2_350_000, first=of(30, 1, 900, 60)),
    Case("rounds that summed up the conversation",
         of(110, 420, iterations=[{"type": "compaction", "input_tokens": 52_000, "output_tokens": 3100},
                                  {"type": "message", "input_tokens": 110, "output_tokens": 420}]), 348_550_000),
    Case("an adviser was asked",
         of(200, 64, iterations=[{"type": "advisor_message", "input_tokens": 900, "output_tokens": 300}]), 14_600_000),
]  # fmt: skip


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with playing("anthropic") as made:
        yield made


def recording(case: Case, stream: bool) -> Recording:
    message: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "model": "up", "content": []}
    if stream:
        first = case.first or case.told | {"output_tokens": 1}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": message | {"usage": first}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Some words."}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": case.told},
            {"type": "message_stop"},
        ]
        told = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
    else:
        content = [{"type": "text", "text": "Some words."}]
        usage = case.first | case.told
        told = json.dumps(message | {"content": content, "stop_reason": "end_turn", "usage": usage}) + "\n"
    kind = "text/event-stream" if stream else "application/json"
    said = f"HTTP/1.1 200 OK\nContent-Type: {kind}\n\n{told}".encode()
    asks = {"max_tokens": 100_000, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return Recording(
        case.name, asks, said, is_http=True, hangs_up=False, gives={}, capability="chat", settings={}, deployment={},
        asked=None, endpoint="messages",
    )  # fmt: skip


@pytest.mark.parametrize("neutral", [False, True], ids=["as bytes", "translated"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_usage_costs_what_a_person_works_out(stage: Stage, case: Case, stream: bool, neutral: bool) -> None:
    used = stage.play(recording(case, stream), neutral=neutral).used
    assert used is not None
    counts = {name: count for name, count in used.items() if name in NAMES}
    tier = pricing.tier_of(PRICE, pricing.TokenBound(1000, 100_000), used.get("service_tier"))
    assert pricing.cost_nano(PRICE, counts, tier) == case.cost_nano
    assert used["estimated"] is case.estimated


def test_what_is_told_to_clients_is_what_was_told(stage: Stage) -> None:
    for case in CASES:
        bill = Bill()
        told = bill.add(json.dumps(case.first).encode(), is_first=True)
        told = bill.add(json.dumps(case.told).encode())
        assert told.prompt is not None and told.cached is not None and told.completion is not None
        usage = Usage(told.prompt, told.cached, told.completion, dict(told.more))
        again = Bill().add(json.dumps(usage_object(usage)).encode())
        assert (again.prompt, again.cached, again.completion, again.more) == (
            told.prompt, told.cached, told.completion, {name: count for name, count in told.more.items() if count},
        )  # fmt: skip


def test_the_upstream_s_own_tools_are_told() -> None:
    bill = Bill()
    bill.add(json.dumps(of(1, 1, server_tool_use={"web_search_requests": 3, "web_fetch_requests": 0})).encode())
    assert bill.unpriced == {"web_search_requests": 3}


@pytest.mark.parametrize("odd", [None, 7, "x", [], {"input_tokens": "many"}, {"cache_creation": [1]}, {"iterations": 3},
                                 {"server_tool_use": {"x": {}}}, {"output_tokens": -1, "input_tokens": 1e400}])  # fmt: skip
def test_no_usage_is_too_odd_to_be_read(odd: Any) -> None:
    bill = Bill()
    bill.add(json.dumps(odd).encode())
    assert bill.tier and bill.unpriced == {}
