"""What every call of the benchmark is priced at and must fit: limits that are checked each time and never reached."""

from __future__ import annotations

from typing import TypedDict


class Budget(TypedDict):
    limit: str
    period: str
    timezone: str


class Rates(TypedDict):
    rpm: int
    tpm: int
    max_parallel: int


PRICE: dict[str, str | None] = {"input_per_mtok": "0.15", "output_per_mtok": "0.60"}
BUDGET = Budget(limit="1000000", period="month", timezone="Europe/Berlin")
RATES = Rates(rpm=1_000_000_000, tpm=1_000_000_000, max_parallel=1_000_000)
