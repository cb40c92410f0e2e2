"""What a budget's period will have cost at its end, if spending goes on as so far in it.

There is one forecast, and every page and export has it. Too early in a period it says nothing: a single large request in
its first hour would be multiplied by hundreds.
"""

from __future__ import annotations

from fractions import Fraction

from app.metering.periods import FOR_EVER_MS, Window

ENOUGH = Fraction(1, 10)  # the part of a period that must have passed


def growth(window: Window, now_ms: int) -> Fraction | None:
    """By what the spending so far is multiplied: the whole period over the part that has passed, at least 1. None for a
    period without an end, and while less than `ENOUGH` of it has passed."""
    whole, passed = window.end_ms - window.start_ms, min(now_ms, window.end_ms) - window.start_ms
    if window.end_ms >= FOR_EVER_MS or passed <= 0 or passed < whole * ENOUGH:
        return None
    return Fraction(whole, passed)


def at_end(spent_nano: int, window: Window, now_ms: int) -> int | None:
    """The cost of the whole period in nano-units, rounded down; None when it can't be told (see `growth`)."""
    factor = growth(window, now_ms)
    return None if factor is None else int(max(0, spent_nano) * factor)
