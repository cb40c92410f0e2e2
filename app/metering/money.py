"""Money as whole nano-units of the deployment's currency, and its decimal spelling.

Floats never touch it: a price list's "0.15" a million tokens is exactly 150,000,000 nano-units.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

NANO = 1_000_000_000
MTOK = 1_000_000
# Lua compares doubles, exact to 2^53 (9.007e15).
MAX_NANO = 9_000_000 * NANO


class MoneyError(ValueError):
    """A text that is not an amount of money; the message is safe to show."""


def parse(text: str | int) -> int:
    """A decimal such as "12.50" as nano-units; raises `MoneyError` for anything not exact, negative or too large."""
    if isinstance(text, str) and len(text) > 40:
        raise MoneyError("expected an amount such as 12.50")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise MoneyError("expected an amount such as 12.50") from None
    if not amount.is_finite() or amount < 0:
        raise MoneyError("expected an amount of at least 0")
    if amount * NANO > MAX_NANO:
        raise MoneyError("expected at most 9000000")
    nano = amount.scaleb(9)
    if nano != nano.to_integral_value():
        raise MoneyError("expected at most 9 decimal places")
    return int(nano)


def text(nano: int) -> str:
    """Nano-units as a plain decimal, without superfluous zeros: 125000 is "0.000125"."""
    if nano < 0:
        return "-" + text(-nano)
    digits = str(nano).zfill(10)
    return f"{digits[:-9]}.{digits[-9:]}".rstrip("0").rstrip(".")


def optional_text(nano: int | None) -> str | None:
    """The same for an amount that may be missing."""
    return None if nano is None else text(nano)


def up(tokens: int, per_mtok: int) -> int:
    """The price of `tokens`, rounded up: what a hold must cover."""
    return -(-tokens * per_mtok // MTOK)


def half_up(amount: int, scale: int) -> int:
    """A sum of counts times prices, `scale` times too large, rounded half up: what is charged."""
    return (2 * amount + scale) // (2 * scale)


def percent(part: float | None, whole: float = 1, digits: int = 1) -> str:
    """`percent(1, 8)` → `12.5%`. A share above zero never reads 0%, and a share below one never reads 100%."""
    if part is None or not whole:
        return "–"
    share = part / whole * 100
    step = 10**-digits
    if 0 < share < step / 2:
        return f"<{step:.{digits}f}%"
    if 100 - step / 2 <= share < 100:
        return f">{100 - step:.{digits}f}%"
    text = f"{share:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"
