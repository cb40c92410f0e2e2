"""Money: decimal texts and nano-units tell exactly the same."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.metering import money

amounts = st.integers(min_value=0, max_value=money.MAX_NANO)


@given(amounts)
def test_an_amount_survives_being_written_and_read(nano):
    assert money.parse(money.text(nano)) == nano
    assert Decimal(money.text(nano)) * money.NANO == nano


@pytest.mark.parametrize(
    ("text", "nano"), [("0.15", 150_000_000), ("0", 0), ("12.50", 12_500_000_000), (3, 3_000_000_000), ("1e-9", 1)]
)
def test_amounts_are_read_exactly(text, nano):
    assert money.parse(text) == nano


@pytest.mark.parametrize("text", ["", "a", "NaN", "Infinity", "-1", "0.0000000001", "9000000.000000001", "1" * 41])
def test_what_is_no_amount_is_refused_with_a_sentence(text):
    with pytest.raises(money.MoneyError, match="expected"):
        money.parse(text)


@given(st.integers(0, 10**7), st.integers(0, 10**12))
def test_a_hold_covers_the_charge(tokens, price):
    assert money.up(tokens, price) >= money.half_up(tokens * price, money.MTOK)
    assert abs(Decimal(money.half_up(tokens * price, money.MTOK)) - Decimal(tokens * price) / money.MTOK) <= Decimal(
        "0.5"
    )
