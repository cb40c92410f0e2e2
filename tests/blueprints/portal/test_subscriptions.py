"""The list of one's own subscriptions, the page of each, ending one, renewing one and asking for a review."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.clock import now
from app.domain import catalog, subscriptions
from app.domain.catalog import Model
from app.domain.notices import Notice
from app.domain.person import Person
from app.domain.subscriptions import Subscription
from app.extensions import db, transaction
from tests.blueprints.portal.conftest import Browser, make_key, subscribe
from tests.house import People
from tests.page import read


def test_the_list_is_empty_then_full_then_filtered(
    people: People, small: Model, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    assert "No subscriptions yet" in owner.page("/subscriptions").headings
    subscribe(people.owner, small)
    subscribe(people.owner, guarded)
    assert owner.page("/subscriptions").total == "2 results"
    pending = owner.page("/subscriptions?status=pending", fragment=True)
    assert (pending.total, pending.row_names) == ("1 result", ["lab/guarded"])
    assert "No subscription fits these filters." in owner.page("/subscriptions?status=denied").texts
    assert "No subscriptions yet" in signed_in("stranger").page("/subscriptions").headings
    assert "No subscriptions yet" in signed_in("admin").page("/subscriptions").headings


def test_cancelling_names_the_keys_that_lose_the_model(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = subscribe(people.owner, small)
    make_key(people.owner, name="nightly batch")
    owner = signed_in("owner")
    asked = owner.page(f"/subscriptions/{id}/cancellation").form(f"/subscriptions/{id}/cancellation")
    assert "This key may call it now: nightly batch." in asked
    assert asked.link("Keep it").href == f"/subscriptions/{id}"
    answer = owner.post(f"/subscriptions/{id}/cancellation", page=f"/subscriptions/{id}/cancellation")
    assert answer.status_code == 303
    page = owner.page("/subscriptions")
    assert page.toasts == ["Your subscription to small is cancelled."]
    assert page.row("small").cell("Status") == "Cancelled"
    again = owner.post(f"/subscriptions/{id}/cancellation")
    assert again.status_code == 303
    assert "already cancelled" in owner.page("/subscriptions").toast
    assert owner.get(f"/subscriptions/{id}/cancellation").status_code == 303


def test_a_request_is_withdrawn(people: People, guarded: Model, signed_in: Callable[[str], Browser]) -> None:
    id = subscribe(people.owner, guarded)
    owner = signed_in("owner")
    way = f"/subscriptions/{id}/cancellation"
    assert "Withdraw your request for lab/guarded?" in owner.page(way).form(way).texts
    owner.post(way)
    assert owner.page("/subscriptions").toasts == ["Your request for lab/guarded is withdrawn."]


@pytest.mark.parametrize(("who", "seen", "done"), [("stranger", 404, 404), ("auditor", 200, 403), ("admin", 200, 303)])
def test_somebody_elses_subscription(
    people: People, small: Model, signed_in: Callable[[str], Browser], who: str, seen: int, done: int
) -> None:
    id = subscribe(people.owner, small)
    other = signed_in(who)
    assert other.get(f"/subscriptions/{id}/cancellation").status_code == seen
    assert other.post(f"/subscriptions/{id}/cancellation").status_code == done
    db.session.rollback()
    assert subscriptions.get_visible(people.owner, id).status == ("cancelled" if who == "admin" else "active")


def decide(people: People, id: str, decision: str, **values: object) -> None:
    transaction(lambda: subscriptions.decide(fresh(id), decision, by=people.admin, **values))  # type: ignore[arg-type]


def fresh(id: str) -> Subscription:
    found = db.session.get(Subscription, id)
    assert found is not None
    return found


def statuses(id: str) -> list[str]:
    db.session.rollback()
    return [step.status for step in fresh(id).timeline]


def told(person: Person) -> list[tuple[str, str | None]]:
    db.session.rollback()
    query = select(Notice.kind, Notice.href).where(Notice.person_id == person.id).order_by(Notice.id)
    return [(kind, href) for kind, href in db.session.execute(query)]


def test_the_list_is_searched_sorted_and_exported(
    people: People, small: Model, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    subscribe(people.owner, small)
    subscribe(people.owner, guarded)
    owner = signed_in("owner")
    listed = owner.page("/subscriptions?sort=-model").table("Your subscriptions")
    assert listed.sorted_by == ("Model", "descending")
    assert listed.row_names == ["small", "lab/guarded"]
    assert owner.page("/subscriptions?sort=model").row_names == ["lab/guarded", "small"]
    assert owner.page("/subscriptions?q=GUARD").row_names == ["lab/guarded"]
    file = owner.get("/subscriptions?q=guard&format=csv", buffered=True)
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert [(row["model"], row["status"], row["input_per_mtok"]) for row in rows] == [("lab/guarded", "pending", "1")]
    assert len(owner.get("/subscriptions?format=json", buffered=True).get_json()["data"]) == 2
    assert signed_in("stranger").get("/subscriptions?format=json", buffered=True).get_json() == {"data": []}


def test_the_page_tells_every_step_with_its_reason(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = subscribe(people.owner, guarded)
    owner = signed_in("owner")
    assert owner.page(f"/subscriptions/{id}").alert.heading == "An administrator will decide"
    decide(people, id, "approve", reason="Welcome <b>", budget={"limit": "5", "period": "month"})
    decide(people, id, "suspend", reason="Too many calls")
    page = owner.page(f"/subscriptions/{id}")
    assert page.alert.heading == "An administrator has paused this access"
    assert "Too many calls" in page.alert
    assert "of $5.00" in page.definition("Spent")
    first, approved, paused = page.section("Timeline").items
    assert first.texts[0] == "Pending"
    assert (approved.texts[0], approved.texts[-1]) == ("Active", "Welcome <b>")
    assert (paused.texts[0], paused.texts[-1]) == ("Suspended", "Too many calls")
    assert told(people.owner) == [(f"subscription.{kind}", f"/subscriptions/{id}") for kind in ("approve", "suspend")]


@pytest.mark.parametrize(("who", "status"), [("stranger", 404), ("auditor", 200), ("admin", 200)])
def test_the_page_is_for_its_person_and_for_admins(
    people: People, small: Model, signed_in: Callable[[str], Browser], who: str, status: int
) -> None:
    id = subscribe(people.owner, small)
    page = signed_in(who).page(f"/subscriptions/{id}", status=status)
    assert ("Cancel subscription" in page.links) == (who == "admin")


def test_a_denial_is_reviewed_by_a_new_request_that_shows_the_former_reason(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = subscribe(people.owner, guarded)
    decide(people, id, "deny", reason="Too dear for letters")
    owner = signed_in("owner")
    way = owner.page("/subscriptions").row("lab/guarded").link("Request a review of the denial of lab/guarded")
    assert way.href == f"/subscriptions/{id}#review"
    page = owner.page(f"/subscriptions/{id}")
    assert "Too dear for letters" in page.alert
    assert "Too dear for letters" in page.section("Request review")
    refused = owner.post(f"/subscriptions/{id}/review", justification=" ")
    assert refused.status_code == 422
    [fault] = [field.error for field in read(refused).section("Request review").fields if field.error]
    assert "Enter what you need" in fault
    answer = owner.post(f"/subscriptions/{id}/review", justification="Only 20 a day now")
    assert answer.status_code == 303
    made = answer.headers["Location"].rpartition("/")[2]
    assert made != id
    assert fresh(made).status == "pending"
    # While the new one is live there is never a second.
    assert "Request review" not in owner.page(f"/subscriptions/{id}").headings
    again = owner.post(f"/subscriptions/{id}/review", justification="And again")
    assert again.headers["Location"].endswith(made)
    assert "already: it is pending" in owner.page("/subscriptions").toasts[-1]
    db.session.rollback()
    assert len(db.session.scalars(subscriptions.owned_by(people.owner)).all()) == 2


def test_a_live_subscription_has_nothing_to_review(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = subscribe(people.owner, guarded)
    owner = signed_in("owner")
    assert owner.post(f"/subscriptions/{id}/review", justification="x").status_code == 303
    assert "You can't request it again" in owner.page(f"/subscriptions/{id}").toast


def test_a_model_that_was_withdrawn_is_not_asked_for_again(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = subscribe(people.owner, guarded)
    decide(people, id, "deny", reason="No")
    transaction(catalog.update_model, guarded, by=people.admin, status="hidden")
    owner = signed_in("owner")
    assert "Request review" not in owner.page(f"/subscriptions/{id}").headings
    assert owner.post(f"/subscriptions/{id}/review", justification="x").status_code == 422


def test_a_renewal_is_asked_for_with_a_reason_and_once(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = subscribe(people.owner, guarded)
    decide(people, id, "approve", expires_at=now() + timedelta(days=13))
    owner = signed_in("owner")
    row = owner.page("/subscriptions").row("lab/guarded")
    assert row.link("Ask for a later end of lab/guarded").href == f"/subscriptions/{id}#renewal"
    assert "Renew" in owner.page(f"/subscriptions/{id}").headings
    refused = owner.post(f"/subscriptions/{id}/renewal", reason="  ")
    assert refused.status_code == 422
    [fault] = [field.error for field in read(refused).section("Renew").fields if field.error]
    assert "Enter a reason why" in fault
    assert owner.post(f"/subscriptions/{id}/renewal", reason="The year is long").status_code == 303
    page = owner.page(f"/subscriptions/{id}")
    assert page.alert.heading == "A renewal has been asked for"
    assert page.section("Timeline").items[-1].texts[-1] == "The year is long"
    assert "Renew" not in page.headings
    owner.post(f"/subscriptions/{id}/renewal", reason="Twice")
    assert statuses(id) == ["pending", "active", "renewal-asked"]
    assert ("subscription.renewal_request", f"/admin/subscriptions/{id}/decision") in told(people.admin)


def test_an_end_that_is_far_or_none_is_not_renewed(
    people: People, guarded: Model, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    far, none = subscribe(people.owner, guarded), subscribe(people.owner, small)
    decide(people, far, "approve", expires_at=now() + timedelta(days=15))
    owner = signed_in("owner")
    for id in (far, none):
        assert "Renew" not in owner.page(f"/subscriptions/{id}").headings
        assert owner.post(f"/subscriptions/{id}/renewal", reason="x").status_code == 303
        assert "renewal-asked" not in statuses(id)


@pytest.mark.parametrize(("who", "status"), [("stranger", 404), ("auditor", 403), ("admin", 403)])
def test_nobody_asks_for_another_person(
    people: People, guarded: Model, signed_in: Callable[[str], Browser], who: str, status: int
) -> None:
    id = subscribe(people.owner, guarded)
    decide(people, id, "approve", expires_at=now() + timedelta(days=3))
    other = signed_in(who)
    assert other.post(f"/subscriptions/{id}/renewal", reason="x").status_code == status
    assert other.post(f"/subscriptions/{id}/review", justification="x").status_code == status
    assert statuses(id) == ["pending", "active"]


def test_an_admin_who_cancels_tells_the_person(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = subscribe(people.owner, small)
    way, admin = f"/subscriptions/{id}/cancellation", signed_in("admin")
    assert "Cancel owner’s subscription to small?" in admin.page(way).form(way).texts
    admin.post(way)
    assert told(people.owner) == [("subscription.cancel", f"/subscriptions/{id}")]
