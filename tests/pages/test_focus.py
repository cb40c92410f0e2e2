"""The chargeback file has FOCUS's columns, adds up to the ledger, and tells names as they were last."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import delete

from app.domain import keys, teams
from app.domain.person import Person
from app.extensions import db, transaction
from app.ledger import posting
from app.metering import money
from app.pages.focus import COLUMNS, focus_lines
from app.reports.chargeback import months_before
from app.workflows import offboarding
from tests.house import People
from tests.ledger.books import ADMIN, NOON, event, some_events

MANDATORY = {
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName",
    "ServiceCategory", "ServiceName",
}  # fmt: skip


def test_the_file_has_the_columns_that_must_be_there_and_its_own_are_marked() -> None:
    assert set(COLUMNS) >= MANDATORY
    assert [column for column in COLUMNS if column.startswith("x_")] == [
        "x_CompletionTokens", "x_PersonId", "x_PersonName", "x_PromptTokens",
    ]  # fmt: skip


def test_the_file_adds_up_to_the_ledger(people: People) -> None:
    told = [*some_events(200, seed=3), event(cost_nano=1), event(kind="late", cost_nano=7)]
    posting.post(told)
    months = months_before(NOON, 2)
    lines = list(focus_lines(ADMIN, months))
    spent = sum(one.cost_nano for one in told if months[0][0] <= one.at_ms < months[-1][1])
    for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
        assert sum(Decimal(COLUMNS[name](line)) for line in lines) == Decimal(spent) / money.NANO
    assert all(line.charge_period_start.endswith("T00:00:00Z") for line in lines)
    assert {line.billing_period_start for line in lines} <= {"2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"}


def test_names_are_told_as_they_were_last(people: People) -> None:
    owner = people.owner.id
    team = transaction(teams.create, by=people.owner, name="Research")
    team_id = team.id
    key, _ = transaction(keys.create, people.owner, by=people.owner, name="app")
    transaction(keys.update, key, by=people.owner, name="app 2")
    posting.post([event(person_id=owner, key_id=key.id), event(person_id=owner, key_id=None, team_id=team_id)])
    db.session.rollback()
    transaction(offboarding.dissolve, team, by=people.admin)
    transaction(offboarding.delete, db.session.get(Person, owner), by=people.admin)
    transaction(lambda: db.session.execute(delete(keys.ApiKey)))
    personal, shared = sorted(focus_lines(ADMIN, months_before(NOON, 1)), key=lambda line: line.sub_account_type)
    assert (personal.sub_account_type, personal.sub_account_name, personal.resource_name) == (
        "Person",
        "owner",
        "app 2",
    )
    assert (shared.sub_account_type, shared.sub_account_name, shared.x_person_name) == ("Team", "Research", "owner")
    assert (shared.resource_id, shared.resource_name, shared.resource_type) == (None, None, None)
