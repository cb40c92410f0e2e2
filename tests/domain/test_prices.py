"""Prices: which one holds, and how one that is asked for is read with its tiers and its long prompts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import now
from app.domain import catalog, prices
from app.domain.errors import Invalid
from app.domain.prices import LARGEST_TOKENS, MOST_TIERS, Price, Terms
from app.extensions import transaction
from app.metering.quantities import PRICES
from tests.conftest import SetClock
from tests.domain.terms import TERMS
from tests.house import People, make_model

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
MOMENTS = st.integers(0, 20).map(lambda hours: AT + timedelta(hours=hours))


@given(st.lists(MOMENTS), MOMENTS)
def test_of_dated_prices_the_last_one_planned_for_the_latest_instant_holds(
    begins: list[datetime], moment: datetime
) -> None:
    dated = [Price(id=f"{number:03}", from_at=at) for number, at in enumerate(begins)]
    held = prices.in_force(dated, moment)
    past = [price for price in dated if price.from_at <= moment]
    assert (held is None) == (not past)
    if held is not None:
        assert held.from_at == max(price.from_at for price in past)
        assert held.id == max(price.id for price in past if price.from_at == held.from_at)


def test_a_planned_price_is_to_come_and_the_last_one_for_its_instant(set_clock: SetClock) -> None:
    set_clock(AT)
    hours = {"past": -1, "now": 0, "later": 2, "soon": 1, "soon, again": 1}
    dated = [Price(id=name, from_at=AT + timedelta(hours=number)) for name, number in hours.items()]
    assert [price.id for price in prices.planned(dated)] == ["soon, again", "later"]


@given(TERMS)
def test_a_price_that_is_told_is_read_as_it_was(terms: Terms) -> None:
    price = Price.of(terms, AT)
    assert prices.read(price.decimals()) == price.terms == terms
    record = price.record()
    assert record.rates == {name: rate for name, rate in terms.rates.items() if rate is not None}
    assert record.tiers == terms.tiers
    assert (record.long_context is None) == (terms.long_context is None)


def test_what_is_left_out_of_a_price_or_null_is_not_priced() -> None:
    assert prices.read({}) == prices.read({"tiers": None, "long_context": None}) == prices.UNPRICED
    assert prices.read({"per_image": "0", "per_request": ""}).rates == dict.fromkeys(PRICES) | {"per_image": 0}


NOT_MONEY = ["-1", "NaN", "Infinity", "1e500", "0.0000000001", "x", "9" * 50, 10**400, 9_000_001]
BANDS = {
    "price": lambda amount: {"per_image": amount},
    "price.tiers.flex": lambda amount: {"tiers": {"flex": {"per_request": "1", "per_image": amount}}},
    "price.long_context": lambda amount: {"long_context": {"above_prompt_tokens": 1, "per_image": amount}},
}


@pytest.mark.parametrize("amount", NOT_MONEY)
@pytest.mark.parametrize("place", BANDS)
def test_an_amount_that_is_not_exact_money_is_refused_at_its_place(place: str, amount: str | int) -> None:
    with pytest.raises(Invalid) as refused:
        prices.read(BANDS[place](amount))
    assert refused.value.field == f"{place}.per_image"


ONE: dict[str, Any] = {"input_per_mtok": "1"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"tiers": {f"t{number}": ONE for number in range(MOST_TIERS + 1)}}, "price.tiers"),
        ({"tiers": {f"t{number}": {"per_image": "x"} for number in range(10_000)}}, "price.tiers"),
        ({"tiers": {"x" * 33: ONE}}, "price.tiers"),
        ({"tiers": {"x" * 100_000: {"input_per_mtok": "wrong"}}}, "price.tiers"),
        ({"tiers": {"flex": ONE, "Upper": {"input_per_mtok": "wrong"}}}, "price.tiers"),
        ({"tiers": {"flex\n": ONE}}, "price.tiers"),
        ({"tiers": {"": ONE}}, "price.tiers"),
        ({"tiers": {"flex": {}}}, "price.tiers.flex"),
        ({"tiers": {"flex": {"input_per_mtok": None, "per_image": ""}}}, "price.tiers.flex"),
        ({"long_context": {"above_prompt_tokens": 1}}, "price.long_context"),
        ({"long_context": {"above_prompt_tokens": 1, "per_image": None}}, "price.long_context"),
        *(
            ({"long_context": {"above_prompt_tokens": above, **ONE}}, "price.long_context.above_prompt_tokens")
            for above in (None, 0, -1, LARGEST_TOKENS + 1, 2**63, True, "1", 1.0)
        ),
        ({"long_context": ONE}, "price.long_context.above_prompt_tokens"),
    ],
)
def test_a_band_that_says_nothing_usable_is_refused_by_a_short_name(given: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        prices.read(given)
    assert refused.value.field == field
    assert len(refused.value.message) < 200


def test_a_price_without_bands_takes_those_of_the_held_one_away(people: People) -> None:
    bands = {"tiers": {"flex": ONE}, "long_context": {"above_prompt_tokens": 200_000, **ONE}}
    model = transaction(make_model, people.admin, price={**ONE, **bands})
    assert model.price is not None and model.price.terms.tiers == {"flex": {"input_per_mtok": 10**9}}
    assert transaction(catalog.set_price, model, by=None, price={**ONE, **bands}, from_at=now()) is None, "the same"
    transaction(catalog.update_model, model, by=None, price={**ONE, "tiers": bands["tiers"], "long_context": None})
    assert (set(model.price.terms.tiers), model.price.terms.long_context) == ({"flex"}, None)
    transaction(catalog.update_model, model, by=None, price=ONE)
    assert model.price.terms == prices.read(ONE)
    transaction(catalog.update_model, model, by=None, price=None)
    assert model.price.terms == prices.UNPRICED


def test_an_entry_s_price_is_found_by_its_id_until_its_model_is_removed(people: People) -> None:
    model = transaction(make_model, people.admin)
    assert model.price is not None
    id = model.price.id
    assert prices.by_id(id) is model.price
    transaction(catalog.remove_model, model, by=None)
    assert prices.by_id(id) is None
