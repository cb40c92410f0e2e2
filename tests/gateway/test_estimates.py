"""What a request would hold: near the end of a budget as much as a reserve would take, and never more than is left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.directory import DatedPrice, Price
from app.gateway.endpoints import CHAT, EMBEDDINGS
from app.gateway.estimates import estimate_of
from app.gateway.runtime import Runtime
from app.metering import money
from app.metering.reservations import SHORTEST_ANSWER, Level
from tests.gateway.dialects.calls import MODEL, asked, chat

RATES = st.integers(0, 100 * money.NANO)


def estimate(
    body: dict[str, Any], lefts: list[int | None], rates: dict[str, int] | None, *, held: int = 0,
    outputs: tuple[int, ...] = (), **fields: Any,
) -> dict[str, Any]:  # fmt: skip
    """The estimate for a caller whose budgets have so much left, from the innermost on."""
    prices = () if rates is None else (DatedPrice(from_ms=0, price=Price(id="p", rates=rates)),)
    model = msgspec.structs.replace(MODEL, prices=prices, **fields)
    lefts = lefts + [None] * (4 - len(lefts))
    levels = [
        Level(limit_nano=left + held + 4, spent_nano=4, held_nano=held) if left else _none(left) for left in lefts
    ]
    runtime = SimpleNamespace(
        meter=SimpleNamespace(levels=lambda chain, now_ms: levels, outputs=lambda key: list(outputs)),
        config=SimpleNamespace(portal=SimpleNamespace(currency="USD")),
    )
    return estimate_of(cast(Runtime, runtime), asked(body, model, EMBEDDINGS if "input" in body else CHAT))


def _none(left: int | None) -> Level:
    return Level() if left is None else Level(limit_nano=0)


def nano(told: str) -> int:
    return money.parse(told)


@settings(deadline=None)  # the first of them reads the vocabulary
@given(RATES, RATES, st.none() | st.integers(1, 10_000), st.none() | st.integers(1, 10**11))
@example(1000, 0, None, 10**6)
def test_the_hold_is_affordable_exactly_if_it_fits_what_is_left(
    input_rate: int, output_rate: int, limit: int | None, left: int | None
) -> None:
    rates = {"input_per_mtok": input_rate, "output_per_mtok": output_rate}
    told = estimate(chat(max_tokens=limit), [left], rates, max_output_tokens=1000)
    hold = nano(told["hold"])
    tokens = told["completion_tokens_bound"]
    assert hold == money.up(told["prompt_tokens_bound"], input_rate) + money.up(tokens, output_rate)
    assert told["affordable"] is (left is None or hold <= left)
    assert nano(told["likely_cost"]) <= hold
    assert tokens <= (1000 if limit is None else limit)
    if limit is None and tokens < 1000:  # shortened for the budget: no token more would fit
        assert told["affordable"] and tokens >= SHORTEST_ANSWER and left is not None
        assert money.up(told["prompt_tokens_bound"], input_rate) + money.up(tokens + 1, output_rate) > left
    assert (told["limited_by"] is None) is told["affordable"]


@pytest.mark.parametrize(
    ("tokens", "answer"), [(SHORTEST_ANSWER - 1, 1000), (SHORTEST_ANSWER, SHORTEST_ANSWER), (999, 999)]
)
def test_an_answer_is_shortened_to_what_is_left_unless_too_little_would_stay_of_it(tokens: int, answer: int) -> None:
    rates = {"input_per_mtok": money.NANO, "output_per_mtok": money.NANO}
    base = estimate(chat(), [], rates, max_output_tokens=1000)["prompt_tokens_bound"] * 1000
    told = estimate(chat(), [base + tokens * 1000], rates, max_output_tokens=1000)
    assert told["completion_tokens_bound"] == answer
    assert told["affordable"] is (tokens >= SHORTEST_ANSWER)


def test_near_the_end_an_answer_is_as_long_as_nearly_all_recent_ones_or_a_share_beside_calls_under_way() -> None:
    rates = {"input_per_mtok": 0, "output_per_mtok": money.NANO}
    for held, tokens in ((0, 125), (1_000, 125), (2_500_000, 47)):
        told = estimate(chat(), [999_000], rates, held=held, outputs=(100,), max_output_tokens=1000)
        assert (told["completion_tokens_bound"], told["affordable"]) == (tokens, True)


def test_the_tightest_budget_is_named_as_people_address_it() -> None:
    rates = {"input_per_mtok": money.NANO, "output_per_mtok": money.NANO}
    told = estimate(chat(max_tokens=1000), [500_000, None, 20, 30], rates)
    assert told["limited_by"] == {"scope": "user", "id": "ada", "remaining": "0.00000002"}
    assert not told["affordable"]


def test_a_model_without_a_price_fits_no_budget_and_costs_nothing_without_one() -> None:
    told = estimate(chat(), [money.NANO], None)
    assert (told["affordable"], told["hold"]) == (False, "0")
    assert estimate(chat(), [], None)["affordable"]
    assert estimate(chat(), [0], {"input_per_mtok": 0, "output_per_mtok": 0})["affordable"]


@pytest.mark.parametrize("left", [None, 10**9])
def test_what_produces_nothing_holds_its_input_alone(left: int | None) -> None:
    told = estimate({"model": "small", "input": "one two"}, [left], {"input_per_mtok": money.NANO})
    assert told["completion_tokens_bound"] == 0
    assert nano(told["hold"]) == told["prompt_tokens_bound"] * 1000


def test_a_likely_cost_is_of_the_tokens_that_a_prompt_has() -> None:
    rates = {"input_per_mtok": money.NANO, "output_per_mtok": money.NANO}
    told = estimate(chat("one two three", max_tokens=5), [], rates)
    assert nano(told["likely_cost"]) == (3 + 5) * 1000
    assert (told["object"], told["model"], told["currency"]) == ("estimate", "small", "USD")
