"""Rules that approve requests at once: kept in order by admins, asked from the first, and named where they acted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import now
from app.domain import approval_rules, audit, budgets, catalog, subscriptions
from app.domain.approval_rules import ApprovalRule
from app.domain.audit import AuditEntry
from app.domain.catalog import Model
from app.domain.notices import Notice
from app.domain.subscriptions import Subscription
from app.extensions import db, transaction
from tests.blueprints.admin.conftest import READ_ONLY, usable
from tests.blueprints.portal.conftest import Browser, subscribe
from tests.house import People
from tests.page import read

SignedIn = Callable[[str], Browser]


def rule(people: People, name: str = "Cheap ones", **values: Any) -> str:
    """The id of a rule."""
    return transaction(approval_rules.create, by=people.admin, **{"name": name, **values}).id


def names() -> list[str]:
    db.session.rollback()
    return [one.name for one in db.session.scalars(approval_rules.in_order())]


def fresh(id: str) -> Subscription:
    db.session.rollback()
    found = db.session.get(Subscription, id)
    assert found is not None
    return found


def fresh_rule(id: str) -> ApprovalRule:
    db.session.rollback()
    return approval_rules.by_id(id)


def test_a_rule_is_made_changed_switched_and_deleted(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "No rules yet" in admin.page("/admin/rules").empty
    form = {
        "name": "Research, cheap", "role": "user", "group": "research", "most_input_per_mtok": "1.50",
        "most_output_per_mtok": "6", "budget_limit": "20", "budget_period": "week", "days": "90",
    }  # fmt: skip
    assert admin.post("/admin/rules", page="/admin/rules/new", **form).status_code == 303
    row = admin.page("/admin/rules").row("Research, cheap")
    assert row.cell("Who") == "Users in the group research"
    assert row.cell("Models").texts == ["at most $1.50 in", "at most $6.00 out", "per 1M tokens"]
    assert row.cell("Approves with").texts == ["$20.00 a week", "for 90 days"]
    path = row.link("Research, cheap").href
    id = path.rpartition("/")[2]
    sent = admin.page(path).form(path).sends
    assert {name: sent[name] for name in form} == {**form, "most_input_per_mtok": "1.5"}
    assert admin.post(f"/admin/rules/{id}", **{**form, "name": "All users", "group": "", "days": ""}).status_code == 303
    found = fresh_rule(id)
    assert (found.name, found.group, found.days, found.budget) == (
        "All users",
        None,
        None,
        {"limit": "20", "period": "week"},
    )
    admin.post(f"/admin/rules/{id}/activity")
    assert fresh_rule(id).active is False
    admin.post(f"/admin/rules/{id}/activity", active="y")
    assert fresh_rule(id).active is True
    assert admin.page(f"/admin/rules/{id}/deletion").form(f"/admin/rules/{id}/deletion").buttons == ["Delete rule"]
    assert admin.post(f"/admin/rules/{id}/deletion").status_code == 303
    assert names() == []
    assert admin.get(f"/admin/rules/{id}").status_code == 404
    acts = [entry.action for entry in db.session.scalars(audit.entries(about="approval_rule"))]
    assert acts == [f"approval_rule.{act}" for act in ("delete", "update", "update", "update", "create")]


@pytest.mark.parametrize(
    ("form", "field", "told"),
    [
        ({"name": ""}, "Name", "Enter a name."),
        ({"name": "x" * 101}, "Name", "at most 100"),
        ({"role": "king"}, "Role", "Not a valid choice."),
        ({"most_input_per_mtok": "cheap"}, "Highest input price", "This amount is invalid"),
        ({"most_output_per_mtok": "-1"}, "Highest output price", "This amount is invalid"),
        ({"budget_limit": "NaN"}, "Budget", "This amount is invalid"),
        ({"budget_period": "eternity"}, "Budget period", "Not a valid choice."),
        ({"days": "0"}, "Days until it ends", "Enter a number from 1"),
        ({"days": "soon"}, "Days until it ends", "Not a valid integer"),
    ],
)
def test_a_bad_rule_comes_back_with_what_was_typed(
    people: People, signed_in: SignedIn, form: dict[str, str], field: str, told: str
) -> None:
    given = {"name": "Kept", "role": "", "group": "kept words", "budget_period": "month", **form}
    answer = signed_in("admin").post("/admin/rules", **given)
    assert answer.status_code == 422
    page = read(answer)
    assert page.errors.keys() == {field}
    assert told in page.errors[field]
    assert page.field("Group").value == "kept words"
    assert names() == []


def test_rules_change_places_and_stay_at_the_ends(people: People, signed_in: SignedIn) -> None:
    first, _, last = (rule(people, name) for name in ("a", "b", "c"))
    admin = signed_in("admin")
    admin.post(f"/admin/rules/{last}/position", direction="up")
    assert names() == ["a", "c", "b"]
    admin.post(f"/admin/rules/{first}/position", direction="up")
    assert names() == ["a", "c", "b"]
    admin.post(f"/admin/rules/{first}/position", direction="down")
    assert names() == ["c", "a", "b"]
    assert admin.page("/admin/rules").table().column("Rule") == ["c", "a", "b"]


def test_who_may_only_read_sees_the_rules_and_changes_none(people: People, signed_in: SignedIn) -> None:
    id = rule(people)
    auditor = signed_in("auditor")
    for path in ("/admin/rules", f"/admin/rules/{id}", "/admin/rules/new"):
        page = auditor.page(path)
        assert usable(page) == []
        assert READ_ONLY in [button.reason for button in page.buttons]
    for path in ("", f"/{id}", f"/{id}/activity", f"/{id}/position", f"/{id}/deletion"):
        assert auditor.post(f"/admin/rules{path}", name="x").status_code == 403
        assert signed_in("owner").post(f"/admin/rules{path}", name="x").status_code == 403
    assert names() == ["Cheap ones"]
    assert fresh_rule(id).active


def test_a_fitting_rule_approves_at_once_with_its_budget_and_end(
    people: People, guarded: Model, signed_in: SignedIn
) -> None:
    rule(people, "Up to $2", most_output_per_mtok="2", budget_limit="7.5", budget_period="week", days=30)
    owner = signed_in("owner")
    page = "/models/lab/guarded"
    assert owner.post(f"{page}/subscription", page=page, justification="Letters").status_code == 303
    assert "You are subscribed to lab/guarded" in owner.page("/home").toast
    db.session.rollback()
    [found] = db.session.scalars(subscriptions.owned_by(people.owner)).all()
    found = fresh(found.id)
    assert (found.status, found.decided_by) == ("active", "portico")
    assert found.expires_at is not None
    assert timedelta(days=29, hours=23) < found.expires_at - now() <= timedelta(days=30)
    steps = [(step.status, step.actor, step.reason) for step in found.timeline]
    assert steps == [("pending", "owner", "Letters"), ("active", "portico", "Approved by the rule “Up to $2”.")]
    budget = budgets.find("subscription", found.id)
    assert budget is not None
    assert (budget.limit_nano, budget.spec) == (7_500_000_000, "week|UTC")
    approved = db.session.scalars(audit.entries(action="subscription.approve")).one()
    assert approved.detail["reason"] == "Approved by the rule “Up to $2”."
    kinds = select(Notice.person_id, Notice.kind)
    assert db.session.execute(kinds).all() == [(people.owner.id, "subscription.approve")]
    assert "Up to $2" in owner.page(f"/subscriptions/{found.id}").section("Timeline").items[-1]


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({}, "active"),
        ({"role": "user"}, "active"),
        ({"role": "admin"}, "pending"),
        ({"group": "Research"}, "active"),
        ({"group": "sales"}, "pending"),
        ({"most_input_per_mtok": "1", "most_output_per_mtok": "2"}, "active"),
        ({"most_input_per_mtok": "0.999999999"}, "pending"),
        ({"most_output_per_mtok": "1.99"}, "pending"),
        ({"role": "user", "group": "research", "most_input_per_mtok": "0"}, "pending"),
    ],
)
def test_a_rule_fits_when_everything_it_names_fits(
    people: People, guarded: Model, values: dict[str, str], status: str
) -> None:
    def join() -> None:
        people.owner.groups = ["research", "night shift"]

    transaction(join)
    rule(people, **values)
    assert fresh(subscribe(people.owner, guarded)).status == status


@pytest.mark.parametrize("price", [None, {"per_request": "0.01"}, {"input_per_mtok": "1"}])
def test_a_model_without_that_price_never_fits_a_price(
    people: People, guarded: Model, price: dict[str, str] | None
) -> None:
    transaction(catalog.update_model, guarded, by=people.admin, price=price)
    rule(people, most_output_per_mtok="1000")
    assert fresh(subscribe(people.owner, guarded)).status == "pending"


def test_the_first_active_fitting_rule_is_the_one(people: People, guarded: Model) -> None:
    off = rule(people, "off")
    transaction(lambda: approval_rules.switch(approval_rules.by_id(off), active=False, by=people.admin))
    rule(people, "for admins", role="admin")
    rule(people, "first", days=3)
    rule(people, "second", days=30)
    found = fresh(subscribe(people.owner, guarded))
    assert found.decision_reason == "Approved by the rule “first”."


def test_open_models_ask_no_rule(people: People, small: Model) -> None:
    rule(people, days=3)
    found = fresh(subscribe(people.owner, small))
    assert (found.decided_by, found.expires_at) == (None, None)
    assert db.session.scalars(select(AuditEntry).where(AuditEntry.action == "subscription.approve")).all() == []
