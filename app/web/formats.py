"""How numbers, money and times read on a page: pure functions, used as Jinja filters.

They are separate from the templates so that each rounding and each wording has one place and one test. Money is integer
nano-units (10⁻⁹ of the currency) and is never converted to a float.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.metering.money import NANO, percent
from app.metering.money import text as decimal

__all__ = [
    "as_utc", "count", "counted", "day", "decimal", "duration", "exact", "exact_time", "is_counted", "money",
    "money_exact", "per_mtok", "percent", "relative_time", "rfc3339", "size", "time_of_day",
]  # fmt: skip

CENT = NANO // 100
MOST_COUNTED = 10_000  # rows of a list; longer lists are not counted further

SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "INR": "₹", "KRW": "₩", "BRL": "R$", "ILS": "₪", "PLN": "zł"}
STEPS = (
    (timedelta(days=365), "year"),
    (timedelta(days=30), "month"),
    (timedelta(days=7), "week"),
    (timedelta(days=1), "day"),
    (timedelta(hours=1), "h"),
    (timedelta(minutes=1), "min"),
)


def _with_currency(number: str, currency: str, sign: str = "") -> str:
    symbol = SYMBOLS.get(currency.upper())
    return f"{sign}{symbol}{number}" if symbol else f"{sign}{number} {currency.upper()}"


def money(nano: int | None, currency: str = "USD") -> str:
    """Two decimals, rounded half up. A cost above zero but below one cent reads `<$0.01`. None reads `–`."""
    if nano is None:
        return "–"
    sign, size = ("-" if nano < 0 else ""), abs(nano)
    if 0 < size < CENT:
        small = _with_currency("0.01", currency)
        return f"<{small}" if not sign else f">-{small}"
    cents = (size + CENT // 2) // CENT
    return _with_currency(f"{cents // 100:,}.{cents % 100:02d}", currency, sign)


def money_exact(nano: int | None, currency: str = "USD") -> str:
    """All significant digits, at least two decimals: `$0.000125`, `$1,204.50`."""
    if nano is None:
        return "–"
    sign = "-" if nano < 0 else ""
    whole, rest = divmod(abs(nano), NANO)
    fraction = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return _with_currency(f"{whole:,}.{fraction}", currency, sign)


def per_mtok(price_nano_per_mtok: int | None, currency: str = "USD") -> str:
    """The exact price of a million tokens, because prices are compared digit by digit. Zero reads `Free`."""
    if price_nano_per_mtok is None:
        return "–"
    return "Free" if price_nano_per_mtok == 0 else money_exact(price_nano_per_mtok, currency)


def exact(number: int | None) -> str:
    """`12345` → `12,345`."""
    return "–" if number is None else f"{number:,}"


def is_counted(rows: int) -> bool:
    """Whether the list was counted completely."""
    return rows <= MOST_COUNTED


def counted(rows: int) -> str:
    """How many rows a list has: `1,234`, or `more than 10,000`."""
    return exact(rows) if is_counted(rows) else f"more than {exact(MOST_COUNTED)}"


def count(number: int | None) -> str:
    """`12345` → `12.3k`. Up to four digits stay exact. Cut, not rounded: 999,999 is not yet a million."""
    if number is None:
        return "–"
    sign, size = ("-" if number < 0 else ""), abs(number)
    if size < 10_000:
        return f"{sign}{size:,}"
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if size >= unit:
            tenths = size * 10 // unit
            whole, tenth = divmod(tenths, 10)
            return f"{sign}{whole:,}{letter}" if whole >= 100 or not tenth else f"{sign}{whole}.{tenth}{letter}"
    raise AssertionError("unreachable: sizes of 10,000 and more are above the smallest unit")


def as_utc(moment: datetime) -> datetime:
    """A moment without a zone is UTC: SQLite returns it that way."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def rfc3339(moment: datetime | None) -> str:
    """`2026-11-21T08:00:00Z`, for `datetime` attributes and exports."""
    return "" if moment is None else as_utc(moment).replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact_time(moment: datetime | None) -> str:
    """`2026-11-21 08:00:00 UTC`: the tooltip of a relative time, until scripts add the local time."""
    return "" if moment is None else as_utc(moment).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(moment: datetime | None) -> str:
    """`21 Nov 2026`."""
    return "–" if moment is None else f"{as_utc(moment).day} {as_utc(moment):%b %Y}"


def time_of_day(moment: datetime | None, now: datetime) -> str:
    """`14:02 UTC` for a moment of today, `29 Nov, 14:02 UTC` for another one."""
    if moment is None:
        return "–"
    at = as_utc(moment)
    return f"{at:%H:%M} UTC" if at.date() == as_utc(now).date() else f"{at.day} {at:%b, %H:%M} UTC"


def relative_time(moment: datetime | None, now: datetime) -> str:
    """`3 min ago`, `in 2 days`, `just now`; None reads `never`."""
    if moment is None:
        return "never"
    gap = as_utc(moment) - as_utc(now)
    size = abs(gap)
    for step, unit in STEPS:
        if size >= step:
            number = size // step
            words = f"{number} {unit}{'s' if number > 1 and unit not in ('h', 'min') else ''}"
            return f"in {words}" if gap > timedelta() else f"{words} ago"
    return "just now" if gap <= timedelta() else "in a moment"


def duration(milliseconds: float | None) -> str:
    """`840 ms`, `1.2 s`, `2 min 5 s`."""
    if milliseconds is None:
        return "–"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"


def size(octets: int | None) -> str:
    """`1536` → `1.5 KB`, in steps of 1024."""
    if octets is None:
        return "–"
    amount = float(octets)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TB"
