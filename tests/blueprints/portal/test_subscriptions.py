"""The list of one's own subscriptions and ending one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.domain import subscriptions
from app.domain.catalog import Model
from app.extensions import db
from tests.blueprints.portal.conftest import Browser, make_key, subscribe
from tests.house import People


def test_the_list_is_empty_then_full_then_filtered(
    people: People, small: Model, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    assert "No subscriptions yet" in owner.get("/subscriptions").text
    subscribe(people.owner, small)
    subscribe(people.owner, guarded)
    assert "2 results" in owner.get("/subscriptions").text
    assert "1 result<" in owner.get("/subscriptions?status=pending", fragment=True).text
    assert "No subscription has this status." in owner.get("/subscriptions?status=denied").text
    assert "No subscriptions yet" in signed_in("stranger").get("/subscriptions").text
    assert "No subscriptions yet" in signed_in("admin").get("/subscriptions").text


def test_cancelling_names_the_keys_that_lose_the_model(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = subscribe(people.owner, small)
    make_key(people.owner, name="nightly batch")
    owner = signed_in("owner")
    page = owner.get(f"/subscriptions/{id}/cancellation").text
    assert "nightly batch" in page
    answer = owner.post(f"/subscriptions/{id}/cancellation", page=f"/subscriptions/{id}/cancellation")
    assert answer.status_code == 303
    page = owner.get("/subscriptions").text
    assert "Your subscription to small is cancelled." in page
    assert "Cancelled" in page
    again = owner.post(f"/subscriptions/{id}/cancellation")
    assert again.status_code == 303
    assert "cancelled already" in owner.get("/subscriptions").text
    assert owner.get(f"/subscriptions/{id}/cancellation").status_code == 303


def test_a_request_is_withdrawn(people: People, guarded: Model, signed_in: Callable[[str], Browser]) -> None:
    id = subscribe(people.owner, guarded)
    owner = signed_in("owner")
    assert "Withdraw your request" in owner.get(f"/subscriptions/{id}/cancellation").text
    owner.post(f"/subscriptions/{id}/cancellation")
    assert "is withdrawn" in owner.get("/subscriptions").text


@pytest.mark.parametrize(("who", "seen", "done"), [("stranger", 404, 404), ("auditor", 200, 403), ("admin", 200, 303)])
def test_somebody_elses_subscription(
    people: People, small: Model, signed_in: Callable[[str], Browser], who: str, seen: int, done: int
) -> None:
    id = subscribe(people.owner, small)
    other = signed_in(who)
    assert other.get(f"/subscriptions/{id}/cancellation").status_code == seen
    assert other.post(f"/subscriptions/{id}/cancellation").status_code == done
    db.session.rollback()
    assert subscriptions.reach(people.owner, id).status == ("cancelled" if who == "admin" else "active")
