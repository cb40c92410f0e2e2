"""Dated prices of models, and how a given price is read.

A price has an amount for each member of `quantities.PRICES`. Its bands hold other amounts for service tiers and for
long prompts. A price is never edited: a change adds a row, and the newest row that has started applies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app import directory
from app.clock import now
from app.domain import amounts
from app.domain.errors import Invalid
from app.extensions import Base, db
from app.metering import money
from app.metering.quantities import PRICES
from app.runtime.ids import new_id

LARGEST_TOKENS = 1_000_000_000
MOST_TIERS = 10
TIER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
TIER_NAME_RULE = "Name a tier with up to 32 lower-case letters, digits, _ and -, beginning with a letter."
NEEDS_AMOUNT = "Enter at least one amount."
TOKENS_RULE = f"Enter the number of prompt tokens above which these amounts apply, from 1 to {LARGEST_TOKENS}."

Rates = dict[str, int]  # nano-units by the name of a member


class Terms(NamedTuple):
    """The content of a price, in nano-units. None means not priced, 0 means free.

    `tiers` has rates by the name of a service tier; `long_context` has `above_prompt_tokens` and `rates`.
    """

    rates: dict[str, int | None]
    tiers: dict[str, Rates]
    long_context: dict[str, Any] | None


UNPRICED = Terms(dict.fromkeys(PRICES), {}, None)


class Priced:
    """One column for each member of a price."""

    if TYPE_CHECKING:
        input_per_mtok: Mapped[int | None]
        output_per_mtok: Mapped[int | None]
        per_request: Mapped[int | None]


for _name in PRICES:
    setattr(Priced, _name, mapped_column(BigInteger, nullable=True))


class Price(Priced, Base):
    """A model's price from `from_at` on. The columns hold its `Terms`."""

    __tablename__ = "price"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"), index=True)
    from_at: Mapped[datetime] = mapped_column(default=now)
    tiers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    long_context: Mapped[dict[str, Any] | None]

    @classmethod
    def of(cls, terms: Terms, from_at: datetime) -> Price:
        """A new price with these terms."""
        return cls(id=new_id(), from_at=from_at, **terms.rates, tiers=terms.tiers, long_context=terms.long_context)

    @property
    def terms(self) -> Terms:
        return Terms({name: getattr(self, name) for name in PRICES}, self.tiers or {}, self.long_context)

    def bands(self) -> dict[str, Any]:
        """The amounts for service tiers and long prompts as decimals, as the API returns them."""
        _, tiers, long = self.terms
        return {
            "tiers": {tier: _decimals(rates) for tier, rates in tiers.items()},
            "long_context": None
            if long is None
            else {"above_prompt_tokens": long["above_prompt_tokens"]} | _decimals(long["rates"]),
        }

    def decimals(self) -> dict[str, Any]:
        """The whole price, as the API returns it and `read` takes it."""
        return _decimals(self.terms.rates) | self.bands()

    def record(self) -> directory.Price:
        """The price for the directory."""
        rates, tiers, long = self.terms
        return directory.Price(
            id=self.id,
            rates={name: amount for name, amount in rates.items() if amount is not None},
            tiers=tiers,
            long_context=None if long is None else directory.LongContext(**long),
        )


_PLACE = attrgetter("from_at", "id")  # sort key of a model's prices, oldest first


def by_id(id: str) -> Price | None:
    """Returns the price a ledger entry was charged by, or None if its model was deleted."""
    return db.session.get(Price, id)


def in_force(prices: Iterable[Price], moment: datetime) -> Price | None:
    """Returns the price that applies at `moment`, or None."""
    return max((price for price in prices if price.from_at <= moment), key=_PLACE, default=None)


def planned(prices: Iterable[Price]) -> list[Price]:
    """Returns a model's future prices, the next first. Of two for the same time, the one created later counts."""
    coming = {price.from_at: price for price in sorted(prices, key=_PLACE) if price.from_at > now()}
    return list(coming.values())


def read(given: Mapping[str, Any]) -> Terms:
    """Reads a whole price: decimals by the names of `PRICES`, `tiers` and `long_context`. A missing or None amount is not
    priced. Raises `Invalid` naming the member, such as `price.tiers.flex.input_per_mtok`."""
    return Terms(
        {name: _read_amount(given.get(name), f"price.{name}") for name in PRICES},
        _read_tiers(given.get("tiers") or {}),
        _read_long_context(given.get("long_context")),
    )


def _read_tiers(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Rates]:
    """Checks the names first, because field paths contain them."""
    if len(given) > MOST_TIERS:
        raise Invalid(f"Use at most {MOST_TIERS} tiers.", "price.tiers")
    if not all(TIER_NAME.fullmatch(tier) for tier in given):
        raise Invalid(TIER_NAME_RULE, "price.tiers")
    return {tier: _read_rates(rates, f"price.tiers.{tier}") for tier, rates in given.items()}


def _read_long_context(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    above = given.get("above_prompt_tokens")
    if type(above) is not int or not 0 < above <= LARGEST_TOKENS:
        raise Invalid(TOKENS_RULE, "price.long_context.above_prompt_tokens")
    return {"above_prompt_tokens": above, "rates": _read_rates(given, "price.long_context")}


def _read_rates(given: Mapping[str, Any], place: str) -> Rates:
    """Reads the amounts of a band. At least one must be given."""
    read = {name: _read_amount(given.get(name), f"{place}.{name}") for name in PRICES}
    rates = {name: amount for name, amount in read.items() if amount is not None}
    if not rates:
        raise Invalid(NEEDS_AMOUNT, place)
    return rates


def _read_amount(text: str | None, place: str) -> int | None:
    return None if text is None or text == "" else amounts.read(text, place, "This price")


def _decimals(rates: Mapping[str, int | None]) -> dict[str, Any]:
    return {name: money.optional_text(value) for name, value in rates.items()}
