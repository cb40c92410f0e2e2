"""Amounts that people give: read exactly, or refused with the field they stand in."""

from __future__ import annotations

import pytest

from app.domain import amounts
from app.domain.errors import Invalid
from app.metering import money


def test_an_amount_is_read_exactly() -> None:
    assert amounts.read("12.5", "limit") == 12_500_000_000
    assert amounts.read("0", "limit") == 0
    assert amounts.read_above_zero("0.000000001") == 1


@pytest.mark.parametrize("text", ["much", "", "NaN", "-1", "1e400", "0.0000000001", "9000001", "1" * 41])
def test_what_is_no_amount_is_shown_with_its_field(text: str) -> None:
    with pytest.raises(Invalid, match=r"^The limit is invalid: expected") as told:
        amounts.read(text, "limit", "The limit")
    assert told.value.field == "limit"


def test_nothing_is_no_amount_above_zero() -> None:
    with pytest.raises(Invalid, match="above 0") as told:
        amounts.read_above_zero("0")
    assert told.value.field == "amount"


def test_a_missing_amount_has_no_text() -> None:
    assert [money.optional_text(nano) for nano in (None, 0, 125_000)] == [None, "0", "0.000125"]
