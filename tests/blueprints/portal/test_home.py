"""The first page: what is left to do, how things stand, and for admins how the whole stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import redis

from app import clock, store
from app.clock import now
from app.domain import budgets
from app.domain.catalog import Model
from app.extensions import db, transaction
from app.ledger import rollups
from app.metering.periods import window_of
from tests.blueprints.portal.conftest import Browser, make_key, subscribe, tell, use
from tests.house import People, make_model
from tests.page import Page

SignedIn = Callable[[str], Browser]


def steps(page: Page) -> list[str]:
    """What is still to be done, as the buttons say it; what was done is told."""
    return [step.links[0].text if step.links else step.texts[-1] for step in page.section("Get started").items]


def test_the_three_steps_are_ticked_off_one_by_one(people: People, small: Model, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    assert steps(owner.page("/home")) == ["Browse models", "Create a key", "Connect a client"]
    subscribe(people.owner, small)
    assert steps(owner.page("/home")) == ["Subscribe to a model done", "Create a key", "Connect a client"]
    key, _ = make_key(people.owner)
    assert steps(owner.page("/home")) == ["Subscribe to a model done", "Create an API key done", "Connect a client"]
    use(people.owner, small, clock.now_ms(), key_id=key)
    page = owner.page("/home")
    assert "Get started" not in page.headings
    assert page.codes == ["http://localhost/v1"]


def test_what_needs_attention_is_told(people: People, small: Model, guarded: Model, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    subscribe(people.owner, guarded)
    make_key(people.owner, name="soon-over", expires_at=now() + timedelta(days=3))
    make_key(people.owner, name="long-lived", expires_at=now() + timedelta(days=60))
    page = owner.page("/home")
    needs = page.section("Needs you")
    assert "The key soon-over expires in 2 days" in [link.text for link in needs.links]
    assert "long-lived" not in page
    assert page.section("Your models").hrefs == ["/subscriptions", "/models/lab/guarded"]
    assert [item.hrefs for item in page.section("Newest models").items] == [["/models/lab/guarded"], ["/models/small"]]


@pytest.mark.parametrize("derived", [False, True])
def test_the_month_begins_with_its_first_instant(
    people: People, small: Model, signed_in: SignedIn, derived: bool
) -> None:
    first = window_of("month|UTC", clock.now_ms()).start_ms
    use(people.owner, small, first, cost_nano=2_000_000_000)
    use(people.owner, small, first - 1, cost_nano=40_000_000_000)
    if derived:
        rollups.derive()
    assert signed_in("owner").page("/home").definition("Spent this month") == "$2.00"


def test_the_whole_portal_is_told_to_admins_only(
    people: People, small: Model, guarded: Model, signed_in: SignedIn
) -> None:
    subscribe(people.owner, guarded)
    use(people.owner, small, clock.now_ms())
    for name in ("admin", "auditor"):
        page = signed_in(name).page("/home")
        system = page.section("The whole portal today")
        assert page.section("Needs you").link("1 request waits for a decision").href == "/admin/approvals"
        assert system.facts == {
            "People": "4", "Active today": "1", "Requests today": "1", "Tokens today": "1,500", "Failed today": "0",
            "Refused today": "0", "Cost today": "<$0.01",
        }  # fmt: skip
    assert "The whole portal today" not in signed_in("owner").page("/home").headings


def test_admins_see_what_a_new_portico_needs_until_a_model_with_a_price_is_served(
    people: People, signed_in: SignedIn
) -> None:
    card = signed_in("admin").page("/home").section("Set up Portico")
    assert [link.text for link in card.links] == ["Add a provider", "Test it", "Add a model", "Set a price"]
    assert not signed_in("auditor").page("/home").section("Set up Portico").links
    assert "Set up Portico" not in signed_in("owner").page("/home").headings
    transaction(make_model, None, "small")
    assert "Set up Portico" not in signed_in("admin").page("/home").headings


def test_the_newest_models_say_that_they_fail(
    people: People, small: Model, signed_in: SignedIn, wire: redis.Redis
) -> None:
    assert "Failing" not in signed_in("owner").page("/home").section("Newest models")
    tell(wire, small.deployments[0].id, failures=3)
    assert "Failing" in signed_in("owner").page("/home").section("Newest models")


def test_what_teams_paid_is_told_apart_from_ones_own_budget(people: People, small: Model, signed_in: SignedIn) -> None:
    transaction(budgets.set_budget, "user", people.owner.id, by=people.admin, limit="0.005", period="month")
    use(people.owner, small, clock.now_ms(), cost_nano=290_000_000)
    owner = signed_in("owner")
    assert "paid by teams" not in owner.page("/home").text
    db.session.rollback()
    use(people.owner, small, clock.now_ms(), cost_nano=60_000_000, team_id="a-team")
    page = owner.page("/home")
    assert page.definition("Spent this month") == "$0.35" and "$0.06 of it paid by teams" in page.text
    budget = page.section("Your budget")
    assert "includes calls that your teams pay" in budget and "of $0.005" in budget


def test_a_budget_that_is_nearly_used_up_needs_somebody_but_the_organisations_is_for_admins(
    people: People, small: Model, signed_in: SignedIn, wire: redis.Redis
) -> None:
    assert "Nothing needs you" not in signed_in("owner").page("/home"), "a newcomer has steps to take"
    for kind, id in (("user", people.owner.id), ("organisation", "default")):
        transaction(budgets.set_budget, kind, id, by=people.admin, limit="5", period="total")
        wire.hset(store.spent(kind, id, "total"), "spent", 4_500_000_000)
    assert [link.text for link in signed_in("owner").page("/home").section("Needs you").links] == [
        "Your budget is nearly used up"
    ]
    assert [link.text for link in signed_in("admin").page("/home").section("Needs you").links] == [
        "The organisation’s budget is nearly used up"
    ]


def test_the_last_requests_and_the_models_to_call_are_there(people: People, small: Model, signed_in: SignedIn) -> None:
    subscribe(people.owner, small)
    key, _ = make_key(people.owner)
    use(people.owner, small, clock.now_ms(), key_id=key)
    page = signed_in("owner").page("/home")
    assert page.section("Your models").hrefs == ["/subscriptions", "/models/small"]
    assert len(page.section("Your last requests").table().rows) == 1
