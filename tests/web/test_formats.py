"""The words and figures of the pages, checked at their edges and, for money, over all amounts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web import formats

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
amounts = st.integers(min_value=-(10**18), max_value=10**18)


@given(amounts)
def test_a_decimal_is_exact_and_plain(nano: int) -> None:
    text = formats.decimal(nano)
    assert Decimal(text) * 10**9 == nano
    assert "e" not in text.lower()
    assert not text.endswith((".", ".0"))


@given(amounts)
def test_exact_money_loses_no_digit(nano: int) -> None:
    text = formats.money_exact(nano)
    assert Decimal(text.replace("$", "").replace(",", "")) * 10**9 == nano
    assert len(text.partition(".")[2]) >= 2


@given(amounts)
def test_money_is_rounded_half_up_from_a_cent_on_and_never_hides_a_cost(nano: int) -> None:
    text = formats.money(nano)
    if 0 < abs(nano) < formats.CENT:
        assert text == ("<$0.01" if nano > 0 else ">-$0.01")
        return
    expected = (Decimal(nano) / 10**9).quantize(Decimal("0.01"), ROUND_HALF_UP)
    assert Decimal(text.replace("$", "").replace(",", "")) == expected


@pytest.mark.parametrize(
    ("nano", "short", "exact"),
    [
        (0, "$0.00", "$0.00"),
        (1, "<$0.01", "$0.000000001"),
        (125_000, "<$0.01", "$0.000125"),
        (10_000_000, "$0.01", "$0.01"),
        (1_204_500_000_000, "$1,204.50", "$1,204.50"),
        (-5_000_000_000, "-$5.00", "-$5.00"),
        (None, "–", "–"),
    ],
)
def test_money_reads(nano: int | None, short: str, exact: str) -> None:
    assert formats.money(nano) == short
    assert formats.money_exact(nano) == exact


def test_a_currency_without_a_known_sign_is_named() -> None:
    assert formats.money(12_000_000_000, "CHF") == "12.00 CHF"
    assert formats.money(12_000_000_000, "EUR") == "€12.00"


def test_prices_are_exact_and_zero_is_free() -> None:
    assert formats.per_mtok(150_000_000) == "$0.15"
    assert formats.per_mtok(75_000_000) == "$0.075"
    assert formats.per_mtok(0) == "Free"
    assert formats.per_mtok(None) == "–"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (12_345, "12.3k"),
        (12_000, "12k"),
        (999_999, "999k"),
        (1_000_000, "1M"),
        (1_250_000_000, "1.2B"),
        (-20_500, "-20.5k"),
        (None, "–"),
    ],
)
def test_counts_are_cut_not_rounded_up(number: int | None, text: str) -> None:
    assert formats.count(number) == text


@pytest.mark.parametrize(
    ("gap", "text"),
    [
        (timedelta(), "just now"),
        (timedelta(seconds=-59), "just now"),
        (timedelta(minutes=-3), "3 min ago"),
        (timedelta(hours=-5), "5 h ago"),
        (timedelta(days=-1), "1 day ago"),
        (timedelta(days=2), "in 2 days"),
        (timedelta(days=-800), "2 years ago"),
        (timedelta(seconds=20), "in a moment"),
    ],
)
def test_moments_read_relative_to_now(gap: timedelta, text: str) -> None:
    assert formats.relative_time(NOW + gap, NOW) == text


def test_a_moment_without_zone_is_utc() -> None:
    naive = datetime(2026, 11, 21, 7, 57)
    assert formats.relative_time(naive, NOW) == "3 min ago"
    assert formats.rfc3339(naive) == "2026-11-21T07:57:00Z"
    assert formats.exact_time(naive) == "2026-11-21 07:57:00 UTC"
    assert formats.day(naive) == "21 Nov 2026"
    assert formats.relative_time(None, NOW) == "never"


def test_a_zone_is_turned_into_utc() -> None:
    east = datetime.fromisoformat("2026-11-21T10:00:00+02:00")
    assert formats.rfc3339(east) == "2026-11-21T08:00:00Z"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1, 8, "12.5%"), (1, 1, "100%"), (0, 5, "0%"), (1, 100_000, "<0.1%"), (99_999, 100_000, ">99.9%"), (1, 0, "–")],
)
def test_percentages_never_claim_nothing_or_all(part: float, whole: float, text: str) -> None:
    assert formats.percent(part, whole) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (840.4, "840 ms"), (1200, "1.2 s"), (59_960, "1 min"), (125_000, "2 min 5 s"), (None, "–")],
)
def test_durations_read(ms: float | None, text: str) -> None:
    assert formats.duration(ms) == text


def test_sizes_read() -> None:
    assert [formats.size(n) for n in (0, 1536, 5 * 1024**2, None)] == ["0 B", "1.5 KB", "5.0 MB", "–"]


def test_a_list_is_counted_up_to_ten_thousand_rows() -> None:
    assert [formats.counted(rows) for rows in (0, 1234, 10_000, 10_001, 10**6)] == [
        "0", "1,234", "10,000", "more than 10,000", "more than 10,000",
    ]  # fmt: skip
    assert formats.is_counted(10_000)
    assert not formats.is_counted(10_001)


def test_a_time_of_day_names_its_day_unless_that_is_today() -> None:
    assert formats.time_of_day(NOW - timedelta(hours=2), NOW) == "06:00 UTC"
    assert formats.time_of_day(NOW - timedelta(hours=9), NOW) == "20 Nov, 23:00 UTC"
    assert formats.time_of_day(None, NOW) == "–"
