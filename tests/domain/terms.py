"""Examples of prices: any that the domain takes."""

from __future__ import annotations

from hypothesis import strategies as st

from app.domain import prices
from app.domain.prices import LARGEST_TOKENS, MOST_TIERS, Terms
from app.metering import money
from app.metering.quantities import PRICES

RATES = st.dictionaries(st.sampled_from(PRICES), st.integers(0, money.MAX_NANO), min_size=1, max_size=4)
LONG = st.fixed_dictionaries({"above_prompt_tokens": st.integers(1, LARGEST_TOKENS), "rates": RATES})
TERMS = st.builds(
    Terms,
    (st.just({}) | RATES).map(lambda rates: dict.fromkeys(PRICES) | rates),
    st.dictionaries(st.from_regex(prices.TIER_NAME, fullmatch=True), RATES, max_size=MOST_TIERS),
    st.none() | LONG,
)
