"""The admins' pages of budgets, credits and requests for more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from app import store
from app.domain import budgets, payers
from app.extensions import db, transaction
from app.ledger import posting
from app.ledger.recount import server_run
from app.metering import money
from app.workflows import budget_requests, publication
from tests.blueprints.admin.conftest import READ_ONLY
from tests.blueprints.portal.conftest import Browser, make_key
from tests.house import People
from tests.ledger import books
from tests.page import read

SignIn = Callable[[str], Browser]
FORM = {
    "limit": "20", "period": "week", "timezone": "Europe/Berlin", "thresholds": "60, 90%", "action": "refuse",
    "action_percent": "90",
}  # fmt: skip


@pytest.fixture(autouse=True)
def open_meter(people: People, wire: redis.Redis) -> None:
    wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})


def limit(people: People, kind: str, id: str, amount: str = "5") -> None:
    transaction(budgets.set_budget, kind, id, by=people.admin, limit=amount, period="total")  # type: ignore[arg-type]
    publication.catch_up()


def book(kind: str, id: str, nano: int) -> None:
    posting.post([books.event(cost_nano=nano, scopes=((kind, id, "total"),))])


def test_every_budget_is_listed_the_nearest_to_its_limit_first(
    people: People, signed_in: SignIn, wire: redis.Redis
) -> None:
    key_id, _ = make_key(people.owner, name="nightly")
    spent = {
        ("user", people.owner.id): "1", ("key", key_id): "5", ("organisation", "default"): "4.2",
        ("user", "somebody-gone"): "0",
    }  # fmt: skip
    for kind, id in spent:
        limit(people, kind, id)
    for (kind, id), amount in spent.items():
        wire.hset(store.spent(kind, id, "total"), "spent", money.parse(amount))
        book(kind, id, money.parse(amount))
    admin = signed_in("admin")
    page = admin.page("/admin/budgets")
    assert page.row_names == ["key nightly", "the organisation", "owner"]
    assert page.row("key nightly").link("key nightly").href == f"/budgets/key/{key_id}"
    assert page.table().column("Spent") == [
        "$5.00 of $5.00 Used up, 100%", "$4.20 of $5.00 Running low, 84%", "$1.00 of $5.00 20%",
    ]  # fmt: skip
    assert page.table().column("Remaining") == ["$0.00", "$0.80", "$4.00"]
    assert page.table().column("State") == ["Used up", "Near its limit", "Within its limit"]
    for query, found in (
        ("sort=name", ["key nightly", "owner", "the organisation"]),
        ("sort=-left", ["owner", "the organisation", "key nightly"]),
        ("state=near", ["key nightly", "the organisation"]),
        ("state=exhausted", ["key nightly"]),
        ("kind=user", ["owner"]),
        ("q=NIGHT", ["key nightly"]),
    ):
        assert admin.page(f"/admin/budgets?{query}").row_names == found, query
    assert "No budget fits these filters" in admin.page("/admin/budgets?q=zzz").empty
    rows = admin.get("/admin/budgets?format=json&state=exhausted", buffered=True).get_json()["data"]
    assert [(row["name"], row["spent"], row["state"]) for row in rows] == [("key nightly", "5", "exhausted")]
    assert admin.get("/admin/budgets?format=csv", buffered=True).text.count("\n") == 4


def test_without_budgets_the_list_says_what_to_do(people: People, signed_in: SignIn) -> None:
    link = signed_in("admin").page("/admin/budgets").empty.link("Set the organisation’s budget")
    assert link.href == "/admin/budgets/organisation/default"


def test_an_admin_sets_a_budget_with_all_that_belongs_to_it(people: People, signed_in: SignIn) -> None:
    admin, path = signed_in("admin"), "/admin/budgets/user/owner"
    assert admin.post(path, page=path, **FORM).status_code == 303
    found = budgets.find("user", people.owner.id)
    assert found is not None
    assert found.summary() == {
        "limit": "20", "period": "week", "timezone": "Europe/Berlin", "thresholds": [60, 90], "action": "refuse",
        "action_percent": 90,
    }  # fmt: skip
    sent = {name: value for name, value in admin.page(path).form(path).sends.items() if name in FORM}
    assert sent == {**FORM, "thresholds": "60, 90"}
    assert admin.post(path, page=path, **{**FORM, "limit": ""}).status_code == 303
    db.session.rollback()
    assert budgets.find("user", people.owner.id) is None


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"limit": "words"}, "Budget"), ({"period": "year"}, "Period"), ({"timezone": "Nowhere"}, "Time zone of the period"),
        ({"thresholds": "50, many"}, "Alert at"), ({"thresholds": "101"}, "Alert at"),
        ({"action": "suspend"}, "Also"), ({"action_percent": "0"}, "At percent"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_comes_back(people: People, signed_in: SignIn, wrong: dict[str, str], field: str) -> None:
    answer = signed_in("admin").post("/admin/budgets/user/owner", **{**FORM, **wrong})
    assert answer.status_code == 422
    page = read(answer)
    assert page.alert.heading == "Please check these fields"
    assert page.errors.keys() == {field}
    assert budgets.find("user", people.owner.id) is None


def test_a_key_may_be_paused_at_a_percent(people: People, signed_in: SignIn) -> None:
    key_id, _ = make_key(people.owner)
    answer = signed_in("admin").post(f"/admin/budgets/key/{key_id}", **{**FORM, "action": "suspend"})
    assert answer.status_code == 303


def test_an_admin_gives_a_credit_once_however_often_the_form_is_sent(
    people: People, signed_in: SignIn, wire: redis.Redis
) -> None:
    limit(people, "user", people.owner.id)
    wire.hset(store.spent("user", people.owner.id, "total"), "spent", 5 * money.NANO)
    admin, page = signed_in("admin"), "/admin/credits/new?scope=user/owner"
    once = admin.page(page).form("/admin/credits").sends["once"]
    form = {"once": once, "scope": "user/owner", "amount": "2.5", "reason": "A lost batch."}
    for _ in range(2):
        assert admin.post("/admin/credits", page=page, **form).status_code == 303
    assert budgets.standing("user", people.owner.id).remaining_nano == 2_500_000_000
    [listed] = admin.page("/admin/credits").rows
    assert (listed.name, listed.cell("Amount"), listed.cell("Reason")) == ("owner", "$2.50", "A lost batch.")
    (row,) = admin.get("/admin/credits?format=json", buffered=True).get_json()["data"]
    assert (row["scope"], row["amount"], row["by"], row["reason"]) == ("user", "2.5", "admin", "A lost batch.")
    history = admin.page("/budgets/user/owner").section("History")
    assert "Credit given just now by admin amount: 2.5. A lost batch." in history.items


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"amount": ""}, "Amount"), ({"amount": "0"}, "Amount"), ({"amount": "-3"}, "Amount"), ({"reason": ""}, "Reason")],
)
def test_a_credit_that_makes_no_sense_comes_back(
    people: People, signed_in: SignIn, wrong: dict[str, str], field: str
) -> None:
    limit(people, "user", people.owner.id)
    form = {"scope": "user/owner", "amount": "1", "reason": "Why not.", **wrong}
    refused = signed_in("admin").post("/admin/credits", **form)
    assert (refused.status_code, read(refused).errors.keys()) == (422, {field})
    assert budgets.standing("user", people.owner.id).spent_nano == 0


def test_a_credit_needs_a_limit_and_a_scope(people: People, signed_in: SignIn) -> None:
    admin = signed_in("admin")
    assert "This has no limit" in admin.page("/admin/credits/new?scope=user/owner").empty
    form = {"scope": "user/owner", "amount": "1", "reason": "Why not."}
    assert admin.post("/admin/credits", **form).status_code == 409
    assert admin.get("/admin/credits/new").status_code == 404
    assert admin.get("/admin/credits/new?scope=user/nobody").status_code == 404


def test_requests_stand_beside_subscriptions(people: People, signed_in: SignIn) -> None:
    limit(people, "user", people.owner.id)
    admin = signed_in("admin")
    assert "Nothing waits for you" in admin.page("/admin/budget-requests").empty
    payer = payers.named("user", "owner")
    made = transaction(budget_requests.ask, payer, by=people.owner, amount="2", lasting=False, reason="A report.")
    [row] = admin.page("/admin/budget-requests").rows
    assert f"/budget-requests/{made.id}" in row.hrefs
    assert "A report." in row
    assert admin.page("/admin/approvals").link("Budget requests 1").href == "/admin/budget-requests"
    assert "No request fits" in admin.page("/admin/budget-requests?q=zzz").empty
    transaction(budget_requests.decide, made, "deny", by=people.admin, reason="No.")
    assert admin.page("/admin/budget-requests").rows == []
    rows = admin.get("/admin/budget-requests?status=all&format=json", buffered=True).get_json()["data"]
    assert [(row["user"], row["amount"], row["status"], row["comment"]) for row in rows] == [
        ("owner", "2", "denied", "No.")
    ]


def test_who_only_reads_changes_nothing(people: People, signed_in: SignIn) -> None:
    limit(people, "user", people.owner.id)
    auditor = signed_in("auditor")
    for path in (
        "/admin/budgets",
        "/admin/budgets/user/owner",
        "/admin/credits",
        "/admin/credits/new?scope=user/owner",
    ):
        assert auditor.get(path).status_code == 200, path
    assert auditor.page("/admin/budgets/user/owner").button("Save").reason == READ_ONLY
    assert auditor.post("/admin/budgets/user/owner", **FORM).status_code == 403
    assert auditor.post("/admin/credits", scope="user/owner", amount="1", reason="Mine.").status_code == 403
