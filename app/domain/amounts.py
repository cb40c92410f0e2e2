"""Amounts of money as people give them, read into nano-units; what cannot be read is told with the field it stands in."""

from __future__ import annotations

from app.domain.errors import Invalid
from app.metering import money


def read(amount: str | int, field: str, what: str = "The amount") -> int:
    """A decimal of 0 or more in nano-units; raises `Invalid`, in which the field is called `what`."""
    try:
        return money.parse(amount)
    except money.MoneyError as error:
        raise Invalid(f"{what} is not usable: {error}.", field) from None


def read_above_zero(amount: str | int, field: str = "amount") -> int:
    """The same for what has to be more than nothing."""
    nano = read(amount, field)
    if nano == 0:
        raise Invalid("Give an amount above 0.", field)
    return nano
