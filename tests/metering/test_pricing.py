"""What a call may cost and what it did cost: every quantity has one price, nothing is counted twice, a hold covers it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.directory import LongContext, Price
from app.metering import pricing
from app.metering.pricing import TokenBound
from app.metering.quantities import NAMES, PARTS, PRICES, QUANTITIES

MTOK = 1_000_000
rates = st.dictionaries(st.sampled_from(PRICES), st.integers(0, 10**12), max_size=6)
prices = st.builds(
    Price,
    id=st.just("p"),
    rates=rates,
    tiers=st.dictionaries(st.sampled_from(("flex", "priority")), rates, max_size=2),
    long_context=st.none() | st.builds(LongContext, above_prompt_tokens=st.integers(1, 2000), rates=rates),
)


def used(prompt: int, completion: int, **parts: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion} | parts


def cost(price: Price, tier: str | None = None, **counts: int) -> int:
    return pricing.cost_nano(price, counts, tier)


def test_each_part_of_a_prompt_is_charged_once_at_its_own_price() -> None:
    price = Price(
        id="p", rates={"input_per_mtok": 10 * MTOK, "cached_input_per_mtok": MTOK, "cache_write_per_mtok": 20 * MTOK}
    )
    assert cost(price, prompt_tokens=100, cached_tokens=60, cache_write_tokens=30) == 60 * 1 + 30 * 20 + 10 * 10
    assert (
        cost(price, prompt_tokens=100, cached_tokens=90, cache_write_tokens=90) == 90 * 1 + 10 * 20
    )  # no more than there is


def test_what_has_no_price_of_its_own_falls_back_to_the_nearest_more_general_one() -> None:
    price = Price(id="p", rates={"input_per_mtok": MTOK, "output_per_mtok": 5 * MTOK, "cache_write_per_mtok": 2 * MTOK})
    assert cost(price, prompt_tokens=10, cached_tokens=10) == 10
    assert cost(price, prompt_tokens=10, cache_write_1h_tokens=10) == 20
    assert cost(price, prompt_tokens=10, audio_input_tokens=4, completion_tokens=2, reasoning_tokens=2) == 10 + 10


@pytest.mark.parametrize(
    ("member", "counts", "expected"),
    [
        ("per_image", {"images": 3}, 3 * 7), ("per_audio_minute", {"audio_ms": 90_000}, 11),
        ("per_million_characters", {"characters": 2 * MTOK}, 14), ("per_request", {}, 7),
    ],
)  # fmt: skip
def test_a_model_is_priced_by_images_minutes_characters_or_requests_alone(
    member: str, counts: dict[str, int], expected: int
) -> None:
    price = Price(id="p", rates={member: 7})
    bound = TokenBound(0, None, produces_output=False, more=counts)
    assert pricing.is_priced(price, bound)
    assert pricing.cost_nano(price, counts) == expected
    assert pricing.base_nano(price, bound) >= expected


@pytest.mark.parametrize("member", PRICES)
def test_a_price_of_something_else_does_not_make_a_call_free(member: str) -> None:
    chat, picture = TokenBound(10, 10), TokenBound(0, None, produces_output=False, more={"images": 1})
    of_tokens = member.endswith("_per_mtok") or member == "per_request"
    assert pricing.is_priced(Price(id="p", rates={member: 0}), chat) == of_tokens
    assert pricing.is_priced(Price(id="p", rates={member: 0}), picture) == (of_tokens or member == "per_image")
    assert not pricing.is_priced(Price(id="p", rates={}), chat)
    assert not pricing.is_priced(None, chat)


def test_a_tier_and_a_long_prompt_have_prices_of_their_own() -> None:
    price = Price(
        id="p", rates={"input_per_mtok": 4 * MTOK, "output_per_mtok": 8 * MTOK},
        tiers={"flex": {"input_per_mtok": 2 * MTOK}},
        long_context=LongContext(above_prompt_tokens=100, rates={"input_per_mtok": 6 * MTOK}),
    )  # fmt: skip
    assert cost(price, prompt_tokens=10, completion_tokens=1) == 48
    assert cost(price, "flex", prompt_tokens=10, completion_tokens=1) == 28
    assert cost(price, "unknown", prompt_tokens=10, completion_tokens=1) == 48
    assert cost(price, prompt_tokens=100) == 400
    assert cost(price, prompt_tokens=101) == 606


def test_a_request_for_a_tier_without_a_price_can_not_be_held_for() -> None:
    price = Price(id="p", rates={"input_per_mtok": 1}, tiers={"flex": {"input_per_mtok": 1}})
    assert pricing.unpriced_member(price, TokenBound(1, 1, tier="flex")) is None
    assert pricing.unpriced_member(price, TokenBound(1, 1, tier="priority")) == "service_tier"
    assert pricing.unpriced_member(price, TokenBound(1, 1, priced_apart="audio")) == "audio"


def test_an_upstream_is_believed_what_tier_it_served_in_unless_it_is_dearer_than_was_asked_for() -> None:
    price = Price(id="p", rates={"input_per_mtok": 2}, tiers={"flex": {}, "priority": {}})

    def told(tier: str | None, asked: str | None) -> str | None:
        return pricing.tier_of(price, TokenBound(1, 1, tier=asked), tier)

    assert told("flex", None) == "flex"
    assert told("priority", None) == "priority"
    assert told("priority", "flex") == "flex"
    assert told(None, "flex") == "flex"
    assert told("default", "flex") is None  # it was too busy: the usual price, which was held too
    assert told("unknown", None) is None
    assert pricing.tier_of(Price(id="p", rates={}), TokenBound(1, 1), "flex") is None


@given(
    prices, st.integers(0, 5000), st.integers(0, 5000), st.sampled_from((None, "flex", "priority")),
    st.sampled_from((None, "flex", "priority", "default")), st.integers(0, pricing.ADDED_TOKENS),
    st.dictionaries(st.sampled_from([one.name for inner in PARTS.values() for one in inner]), st.integers(0, 9000)),
)  # fmt: skip
def test_a_hold_covers_whatever_the_upstream_tells(
    price: Price, prompt: int, completion: int, asked: str | None, told: str | None, added: int, parts: dict[str, int]
) -> None:
    bound = TokenBound(prompt, completion, tier=asked)
    output = -(-completion * pricing.output_price(price, bound) // MTOK)
    tier = pricing.tier_of(price, bound, told)
    counts = used(prompt, completion, **parts)
    assert pricing.cost_nano(price, counts, tier) <= pricing.base_nano(price, bound) + output

    # What the upstream itself adds to a prompt is not held for, but the price of a long one is.
    long = counts | {"prompt_tokens": prompt + added}
    more = -(-added * _dearest(price) // MTOK)
    assert pricing.cost_nano(price, long, tier) <= pricing.base_nano(price, bound) + output + more + 1


def _dearest(price: Price) -> int:
    bands = [price.rates, *price.tiers.values(), price.long_context.rates if price.long_context else {}]
    return max((rate for rates in bands for rate in rates.values()), default=0)


@given(prices, st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 9000))
def test_the_lines_of_a_cost_are_its_sum(price: Price, prompt: int, completion: int, cached: int) -> None:
    counts = used(prompt, completion, cached_tokens=cached)
    lines = pricing.parts_of(price, counts)
    assert sum(line.number for line in lines) == prompt + completion
    exact = sum(line.number * line.rate for line in lines)
    total = pricing.cost_nano(price, counts) - pricing.request_rate(price, counts)
    assert abs(2 * total * MTOK - 2 * exact) <= MTOK


def test_every_quantity_that_is_part_of_another_names_it() -> None:
    assert {one.within for one in QUANTITIES if one.within is not None} == {"prompt_tokens", "completion_tokens"}
    assert len(set(NAMES)) == len(NAMES)
    assert all(one.like in PRICES for one in QUANTITIES if one.like is not None)


TOKENS = {"prompt_tokens": 10, "completion_tokens": 5}


@pytest.mark.parametrize(
    ("rates", "used", "expected"),
    [
        (None, TOKENS, TOKENS),
        ({}, TOKENS, TOKENS),
        ({"input_per_mtok": 0, "output_per_mtok": 0}, TOKENS, {}),  # 0 is a price
        ({"input_per_mtok": 1}, TOKENS, {"completion_tokens": 5}),
        ({"input_per_mtok": 1}, {"prompt_tokens": 10}, {}),  # such as embeddings
        ({"output_per_mtok": 1}, TOKENS | {"cached_tokens": 4}, {"prompt_tokens": 10}),
        ({"output_per_mtok": 1, "cached_input_per_mtok": 1}, TOKENS | {"cached_tokens": 4}, {"prompt_tokens": 6}),
        ({"per_request": 1}, TOKENS, {}),
        ({"per_image": 1}, TOKENS | {"images": 1}, {}),
        ({"input_per_mtok": 1}, {"prompt_tokens": 10, "images": 1}, {"images": 1}),
        ({"input_per_mtok": 1, "image_output_per_mtok": 1}, TOKENS | {"image_output_tokens": 5, "images": 1}, {}),
        ({"per_audio_minute": 1}, TOKENS | {"audio_ms": 60_000}, {}),
        ({"input_per_mtok": 1}, {"prompt_tokens": 10, "audio_ms": 60_000}, {}),
        ({"per_million_characters": 1}, {"characters": 9, "completion_tokens": 4}, {}),
        ({"input_per_mtok": 1}, {"characters": 9}, {"characters": 9}),
        ({"input_per_mtok": 1, "output_per_mtok": 1}, {"prompt_tokens": 9, "images": 2}, {"images": 2}),
    ],
)
def test_what_no_member_of_a_price_speaks_of_is_told(rates, used, expected):
    price = None if rates is None else Price(id="p", rates=rates)
    assert pricing.unpriced(price, used) == expected


@given(st.dictionaries(st.sampled_from(PRICES), st.integers(1, 10**9)),
       st.dictionaries(st.sampled_from(NAMES), st.integers(1, 10**6)))  # fmt: skip
def test_a_call_that_costs_nothing_says_why(rates, used):
    """A price without a 0 makes nothing free: what was used and cost nothing is told as unpriced."""
    price = Price(id="p", rates=rates)
    found = pricing.unpriced(price, used)
    assert all(0 < found[name] <= used[name] for name in found)
    wholes = [name for name in PARTS if used.get(name)]
    if wholes and pricing.cost_nano(price, {name: count * 10**9 for name, count in used.items()}) == 0:
        assert found
