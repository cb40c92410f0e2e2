"""The chargeback file: the ledger's costs in the columns of FOCUS 1.2, which tools of finance read.

A line is a day of one key (or of a person's access tokens), of one model at one provider. Costs are exact, so that the file
adds up to the ledger. What FOCUS calls a sub-account is who pays: a team, or a person outside teams. All prices are the
organisation's own, so that its four costs are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from app import current
from app.clock import from_ms
from app.metering import money
from app.metering.periods import window_of
from app.pages.usage import Group, look_up_names
from app.reports.chargeback import DailyCharge, daily_charges
from app.reports.planner import Reader


def _column(name: str) -> str:
    """`billed_cost` is BilledCost; a column of our own begins with `x_`, as FOCUS asks."""
    own, words = ("x_", name[2:]) if name.startswith("x_") else ("", name)
    return own + "".join(word.capitalize() for word in words.split("_"))


class FocusLine(msgspec.Struct, kw_only=True, rename=_column):
    """A line of the chargeback file. Amounts are decimal text; times are those of UTC, ends exclusive."""

    billed_cost: str
    billing_account_id: str
    billing_account_name: str
    billing_account_type: str
    billing_currency: str
    billing_period_end: str
    billing_period_start: str
    charge_category: str = "Usage"
    charge_class: str | None = None
    charge_description: str
    charge_frequency: str = "Usage-Based"
    charge_period_end: str
    charge_period_start: str
    consumed_quantity: int
    consumed_unit: str = "Tokens"
    contracted_cost: str
    effective_cost: str
    invoice_issuer_name: str
    list_cost: str
    pricing_category: str = "Standard"
    pricing_quantity: int
    pricing_unit: str = "Requests"
    provider_name: str
    publisher_name: str
    resource_id: str | None
    resource_name: str | None
    resource_type: str | None
    service_category: str = "AI and Machine Learning"
    service_name: str
    service_subcategory: str = "Generative AI"
    sku_id: str
    sub_account_id: str
    sub_account_name: str
    sub_account_type: str
    x_completion_tokens: int
    x_person_id: str
    x_person_name: str
    x_prompt_tokens: int


COLUMNS = {
    column: attrgetter(name)
    for name, column in zip(FocusLine.__struct_fields__, FocusLine.__struct_encode_fields__, strict=True)
}


def focus_lines(reader: Reader, months: Sequence[tuple[int, int]]) -> Iterator[FocusLine]:
    """The lines of consecutive months, oldest first. Raises `PermissionError` for a reader who may not see everything."""
    for charges in daily_charges(reader, months):
        yield from lines_of(charges)


def lines_of(charges: Sequence[DailyCharge]) -> Iterator[FocusLine]:
    """The lines of some charges, in the same order."""
    portal, names = current.config().portal, _names(charges)
    for one in charges:
        yield _line(one, names, portal.name, portal.currency)


def _names(charges: Sequence[DailyCharge]) -> dict[tuple[Group, str], str]:
    """The names of all that charges refer to, as they are or as they were last."""
    return look_up_names(
        {
            "key": {one.key_id for one in charges if one.key_id},
            "team": {one.team_id for one in charges if one.team_id},
            "user": {one.person_id for one in charges},
            "provider": {one.provider_id for one in charges if one.provider_id},
        }
    )


def _line(one: DailyCharge, names: dict[tuple[Group, str], str], portal: str, currency: str) -> FocusLine:
    cost = money.text(one.cost_nano)
    day, month = window_of("day|UTC", one.start_ms), window_of("month|UTC", one.start_ms)
    person, pays = names["user", one.person_id], "team" if one.team_id else "user"
    provider = names["provider", one.provider_id] if one.provider_id else portal
    payer: dict[str, Any] = {
        "sub_account_id": one.team_id or one.person_id,
        "sub_account_name": names["team", one.team_id] if pays == "team" else person,
        "sub_account_type": "Team" if pays == "team" else "Person",
    }
    key: dict[str, Any] = {
        "resource_id": one.key_id or None,
        "resource_name": names["key", one.key_id] if one.key_id else None,
        "resource_type": "API key" if one.key_id else None,
    }
    return FocusLine(
        billed_cost=cost,
        contracted_cost=cost,
        effective_cost=cost,
        list_cost=cost,
        billing_account_id="default",
        billing_account_name=portal,
        billing_account_type="Organisation",
        billing_currency=currency,
        billing_period_start=_moment(month.start_ms),
        billing_period_end=_moment(month.end_ms),
        charge_period_start=_moment(day.start_ms),
        charge_period_end=_moment(day.end_ms),
        charge_description=f"Use of {one.model}",
        consumed_quantity=one.prompt_tokens + one.completion_tokens,
        pricing_quantity=one.requests,
        invoice_issuer_name=portal,
        provider_name=portal,
        publisher_name=provider,
        service_name=one.model,
        sku_id=one.model,
        x_person_id=one.person_id,
        x_person_name=person,
        x_prompt_tokens=one.prompt_tokens,
        x_completion_tokens=one.completion_tokens,
        **payer,
        **key,
    )


def _moment(at_ms: int) -> str:
    return f"{from_ms(at_ms):%Y-%m-%dT%H:%M:%SZ}"
