"""Parses amounts of money that people enter into nano-units; an error names the input field."""

from __future__ import annotations

from app.domain.errors import Invalid
from app.metering import money


def read(amount: str | int, field: str, what: str = "The amount") -> int:
    """Parse a decimal of at least 0 into nano-units. Raises `Invalid` for `field`; the message calls it `what`."""
    try:
        return money.parse(amount)
    except money.MoneyError as error:
        raise Invalid(f"{what} is invalid: {error}.", field) from None


def read_above_zero(amount: str | int, field: str = "amount") -> int:
    """The same for an amount that must be above 0."""
    nano = read(amount, field)
    if nano == 0:
        raise Invalid("Enter an amount above 0.", field)
    return nano
