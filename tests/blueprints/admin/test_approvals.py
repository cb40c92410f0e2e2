"""Requests for restricted models: listed, approved with limits, denied with a reason, decided once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from app.domain import budgets, identity, subscriptions
from app.domain.catalog import Model
from app.domain.subscriptions import Subscription
from app.extensions import db, now, transaction
from tests.blueprints.portal.conftest import Browser, subscribe
from tests.house import People

SignedIn = Callable[[str], Browser]


@pytest.fixture
def asked(people: People, guarded: Model) -> str:
    """The id of a request that waits."""
    made, _ = transaction(
        subscriptions.request, people.owner, guarded, by=people.owner, justification="Sorting <letters>"
    )
    return made.id


def fresh(id: str) -> Subscription:
    db.session.rollback()
    found = db.session.get(Subscription, id)
    assert found is not None
    return found


def decide(browser: Browser, id: str, decision: str, **form: str) -> int:
    return browser.post(f"/admin/subscriptions/{id}/decision", decision=decision, **form).status_code


def test_what_waits_is_listed_first_and_counted_in_the_menu(
    people: People, asked: str, small: Model, signed_in: SignedIn
) -> None:
    subscribe(people.stranger, small)  # active at once: nobody had to decide
    admin = signed_in("admin")
    page = admin.get("/admin/approvals").text
    assert "1 result<" in page
    assert "owner" in page
    assert "Sorting &lt;letters&gt;" in page
    assert 'nav-badge">1<' in page
    assert decide(admin, asked, "approve") == 303
    page = admin.get("/admin/approvals").text
    assert "owner may use lab/guarded now." in page
    assert "Nothing waits for you" in page
    assert "nav-badge" not in page
    assert "by admin" in admin.get("/admin/approvals?status=all").text
    assert "1 result<" in admin.get("/admin/approvals?status=active&q=GUARD", fragment=True).text
    assert "No request fits this search." in admin.get("/admin/approvals?status=all&q=nobody").text
    assert "No request has this status." in admin.get("/admin/approvals?status=denied").text


def test_an_approval_may_bear_an_end_a_budget_and_a_comment(people: People, asked: str, signed_in: SignedIn) -> None:
    day = (now() + timedelta(days=3)).date()
    form = {"reason": "Welcome", "expires_on": day.isoformat(), "budget": "12.5", "period": "week"}
    assert decide(signed_in("admin"), asked, "approve", **form) == 303
    found = fresh(asked)
    assert (found.status, found.decided_by, found.decision_reason) == ("active", "admin", "Welcome")
    assert found.expires_at is not None
    assert found.expires_at.date() == day + timedelta(days=1)
    budget = budgets.find("subscription", asked)
    assert budget is not None
    assert budget.summary() == {"limit": "12.5", "period": "week", "timezone": "UTC"}


def test_a_denial_needs_a_reason_that_the_person_reads(people: People, asked: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    refused = admin.post(f"/admin/subscriptions/{asked}/decision", decision="deny", reason="  ", budget="7")
    assert refused.status_code == 422
    assert "Give a reason" in refused.text
    assert 'value="7"' in refused.text
    assert fresh(asked).status == "pending"
    assert decide(admin, asked, "deny", reason="Too dear for letters", budget="7") == 303
    assert fresh(asked).status == "denied"
    assert budgets.find("subscription", asked) is None
    assert "Too dear for letters" in signed_in("owner").get("/subscriptions").text


def test_the_dialog_is_the_same_form_as_the_page(people: People, asked: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    path = f"/admin/subscriptions/{asked}/decision"
    page, dialog = admin.get(path).text, admin.get(path, fragment=True).text
    assert "<dialog" in dialog
    assert "<html" not in dialog
    assert 'id="decision-dialog"' not in page
    for text in (page, dialog):
        assert "Sorting &lt;letters&gt;" in text
        assert 'value="approve"' in text
        assert 'value="deny"' in text


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"expires_on": "2001-01-01"}, "Give today or a later day."),
        ({"expires_on": "soon"}, "Not a valid date value."),
        ({"budget": "-1"}, "at least 0"),
        ({"budget": "much"}, "an amount such as 12.50"),
        ({"budget": "5", "period": "eternity"}, "Not a valid choice."),
        ({"reason": "x" * 2001}, "at most 2000 characters"),
        ({"decision": "suspend"}, "Choose to approve or to deny."),
        ({"decision": ""}, "Choose to approve or to deny."),
    ],
)
def test_a_bad_form_comes_back_with_what_was_typed(
    people: People, asked: str, signed_in: SignedIn, form: dict[str, str], told: str
) -> None:
    given = {"decision": "approve", "reason": "Kept words", **form}
    refused = signed_in("admin").post(f"/admin/subscriptions/{asked}/decision", **given)
    assert refused.status_code == 422
    assert told in refused.text
    assert given["reason"] in refused.text
    assert fresh(asked).status == "pending"
    assert budgets.find("subscription", asked) is None


def test_deciding_twice_is_a_clear_conflict(people: People, asked: str, signed_in: SignedIn) -> None:
    transaction(identity.create, by=None, username="second", password=people.admin.password_hash, role="admin")
    first, second = signed_in("admin"), signed_in("second")
    assert decide(first, asked, "approve") == 303
    late = second.post(f"/admin/subscriptions/{asked}/decision", decision="deny", reason="No")
    assert late.status_code == 409
    assert "decided already" in late.text
    assert "decided by admin" in late.text
    assert 'value="approve"' not in late.text
    assert fresh(asked).status == "active"
    db.session.rollback()
    assert second.get(f"/admin/subscriptions/{asked}/decision").status_code == 200


def test_the_way_back_leads_to_the_list_as_it_was_and_nowhere_else(
    people: People, asked: str, guarded: Model, signed_in: SignedIn
) -> None:
    admin = signed_in("admin")
    subscribe(people.stranger, guarded)
    path = f"/admin/subscriptions/{asked}/decision"
    for back, led in (
        ("/admin/approvals?status=all&q=o", "/admin/approvals?status=all&q=o"),
        ("https://evil.example/admin/approvals", "/admin/approvals"),
        ("/keys", "/admin/approvals"),
    ):
        page = admin.get(path, query_string={"back": back})
        assert f'href="{led.replace("&", "&amp;")}"' in page.text
    done = admin.post(path, decision="approve", back="/admin/approvals?status=all")
    assert done.headers["Location"] == "/admin/approvals?status=all"
