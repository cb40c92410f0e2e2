"""Usage arranged for a page: tiles, a chart by day and model, a table by model, and the sum behind a request's cost.

The person's own page and the admins' one over everyone show the same things, so what they show is put together here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from app.domain.catalog import Price
from app.ledger import reports
from app.ledger.posting import UsageEntry
from app.ledger.reports import Filters, PeriodUsage, Reader, Share, Sums
from app.metering import money

Metric = Literal["tokens", "requests", "cost"]
METRICS: tuple[Metric, ...] = get_args(Metric)
METRIC_NAMES: dict[Metric, str] = {"tokens": "Tokens", "requests": "Requests", "cost": "Cost"}
RANGES = (7, 30, 90)
SERIES = 7  # models that the chart tells apart; the others are one series, so that its colours stay distinct
OTHERS = "Other models"


class Overview(NamedTuple):
    """Usage of the last days, today included. Days are UTC days."""

    days: int
    metric: Metric
    sums: Sums
    rows: list[PeriodUsage]
    models: list[Share]  # dearest first
    columns: list[str]
    cells: list[list[Any]]  # of the chart's table: the day, then a cell a series

    @property
    def metric_name(self) -> str:
        return METRIC_NAMES[self.metric]

    @property
    def from_ms(self) -> int:
        return self.rows[0].start_ms


class Line(NamedTuple):
    """One factor of a request's cost: `quantity` × `price_nano` (a million tokens, or one request) = `amount`."""

    what: str
    quantity: int
    unit: str
    price_nano: int
    amount: str  # decimal, exact


def asked(args: Mapping[str, str]) -> tuple[int, Metric]:
    """The range in days and the metric that an address asks for; anything else means the usual ones."""
    days = next((days for days in RANGES if args.get("range") == str(days)), 30)
    metric = next((metric for metric in METRICS if args.get("metric") == metric), METRICS[0])
    return days, metric


def overview(reader: Reader, *, days: int, metric: Metric, filters: Filters = reports.NONE) -> Overview:
    """The usage of the last `days` days that `filters` let through."""
    rows = reports.usage(reader, "day", periods=days, filters=filters)
    sums = Sums()
    by_model: dict[str, Share] = {}
    for row in rows:
        sums.add(row)
        for name, part in row.models.items():
            by_model.setdefault(name, Share(name=name)).add(part)
    models = sorted(by_model.values(), key=lambda share: (-share.cost_nano, -share.requests, share.name))
    largest = sorted(models, key=lambda share: (-_measure(share, metric), share.name))
    named = [share.name for share in largest[:SERIES]]
    cells = []
    for row in rows:
        known = [row.models.get(name, Sums()) for name in named]
        numbers = [_measure(part, metric) for part in known]
        if len(models) > SERIES:
            numbers.append(_measure(row, metric) - sum(numbers))
        cells.append([f"{row.start.day} {row.start:%b}", *(_cell(number, metric) for number in numbers)])
    columns = ["Day", *named, *([OTHERS] if len(models) > SERIES else [])]
    return Overview(days, metric, sums, rows, models, columns, cells)


def since(filters: Filters, from_ms: int) -> Filters:
    """`filters`, from an instant on."""
    return msgspec.structs.replace(filters, from_ms=from_ms)


def moment(at_ms: int) -> datetime:
    """A time of the books as an instant."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)


def arithmetic(entry: UsageEntry, price: Price) -> list[Line]:
    """How an entry's cost follows from its price: the sum of the lines, rounded half up to a nano-unit once."""
    cached = min(entry.cached_tokens, entry.prompt_tokens)
    cached_price = price.input_per_mtok if price.cached_input_per_mtok is None else price.cached_input_per_mtok
    parts = [
        ("Input", entry.prompt_tokens - cached, price.input_per_mtok or 0),
        ("Cached input", cached, cached_price or 0),
        ("Output", entry.completion_tokens, price.output_per_mtok or 0),
    ]
    lines = [
        Line(what, tokens, "tokens", per_mtok, _decimal(Decimal(tokens * per_mtok) / money.MTOK))
        for what, tokens, per_mtok in parts
        if tokens
    ]
    if price.per_request and entry.cost_nano:
        lines.append(Line("Request", 1, "request", price.per_request, _decimal(Decimal(price.per_request))))
    return lines


def _measure(sums: Sums, metric: Metric) -> int:
    match metric:
        case "tokens":
            return sums.total_tokens
        case "requests":
            return sums.requests
        case "cost":
            return sums.cost_nano


def _cell(number: int, metric: Metric) -> Any:
    return {"nano": number, "value": money.text(number)} if metric == "cost" else number


def _decimal(nano: Decimal) -> str:
    text = f"{nano / money.NANO:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
