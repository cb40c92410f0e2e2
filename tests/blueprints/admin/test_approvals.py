"""Requests for restricted models and renewals: listed, approved with limits, denied with a reason, decided once, one
by one or many together."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

import pytest

from app.clock import now
from app.domain import budgets, identity, subscriptions
from app.domain.catalog import Model
from app.domain.subscriptions import Subscription
from app.extensions import db, transaction
from tests.blueprints.admin.conftest import READ_ONLY, usable
from tests.blueprints.portal.conftest import Browser, subscribe, use
from tests.house import People
from tests.page import read

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
    page = admin.page("/admin/approvals")
    assert page.total == "1 result"
    assert page.row_names == ["owner"]
    assert page.row("owner").cell("Purpose") == "Sorting <letters>"
    assert page.menu.link("Approvals").badge == "1"
    assert decide(admin, asked, "approve") == 303
    page = admin.page("/admin/approvals")
    assert page.toast == "owner may use lab/guarded now."
    assert "Nothing waits for you" in page.empty
    assert page.menu.link("Approvals").badge is None
    assert "by admin" in admin.page("/admin/approvals?status=all").row("owner").cell("Changed")
    assert admin.page("/admin/approvals?status=active&q=GUARD", fragment=True).total == "1 result"
    assert "No request fits this search." in admin.page("/admin/approvals?status=all&q=nobody").empty
    assert "No request has this status." in admin.page("/admin/approvals?status=denied").empty


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
    assert (budget.limit_nano, budget.spec) == (12_500_000_000, "week|UTC")


def test_a_denial_needs_a_reason_that_the_person_reads(people: People, asked: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    refused = admin.post(f"/admin/subscriptions/{asked}/decision", decision="deny", reason="  ", budget="7")
    assert refused.status_code == 422
    page = read(refused)
    assert page.errors == {"Comment": "Enter a reason. It is shown to the person."}
    assert page.field("Budget").value == "7"
    assert fresh(asked).status == "pending"
    assert decide(admin, asked, "deny", reason="Too dear for letters", budget="7") == 303
    assert fresh(asked).status == "denied"
    assert budgets.find("subscription", asked) is None
    own = signed_in("owner").page("/subscriptions").row("lab/guarded")
    assert own.cell("Status") == "Denied"
    assert "Too dear for letters" in own.cell("Requested, decided")


def test_the_dialog_is_the_same_form_as_the_page(people: People, asked: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    path = f"/admin/subscriptions/{asked}/decision"
    page, part = admin.page(path), admin.page(path, fragment=True)
    assert not part.is_whole
    title = "Request for lab/guarded"
    assert title in page.headings
    for shown in (page, part.dialog(title)):
        assert shown.definition("Purpose") == "Sorting <letters>"
        form = shown.form(path)
        assert [form.button(text).value for text in ("Approve", "Deny")] == ["approve", "deny"]
        assert form.sends.keys() == page.form(path).sends.keys()


@pytest.mark.parametrize(
    ("form", "field", "told"),
    [
        ({"expires_on": "2001-01-01"}, "Last day of access", "Enter today or a later day."),
        ({"expires_on": "soon"}, "Last day of access", "Not a valid date value."),
        ({"budget": "-1"}, "Budget", "at least 0"),
        ({"budget": "much"}, "Budget", "an amount such as 12.50"),
        ({"budget": "5", "period": "eternity"}, "Budget period", "Not a valid choice."),
        ({"reason": "x" * 2001}, "Comment", "at most 2000 characters"),
        ({"decision": "explode"}, None, "Choose what to decide."),
        ({"decision": ""}, None, "Choose what to decide."),
    ],
)
def test_a_bad_form_comes_back_with_what_was_typed(
    people: People, asked: str, signed_in: SignedIn, form: dict[str, str], field: str | None, told: str
) -> None:
    given = {"decision": "approve", "reason": "Kept words", **form}
    refused = signed_in("admin").post(f"/admin/subscriptions/{asked}/decision", **given)
    assert refused.status_code == 422
    page = read(refused)
    assert told in page.alert
    assert [name for name, error in page.errors.items() if told in error] == ([field] if field else [])
    assert page.field("Comment").value == given["reason"]
    assert fresh(asked).status == "pending"
    assert budgets.find("subscription", asked) is None


def test_deciding_twice_is_a_clear_conflict(people: People, asked: str, signed_in: SignedIn) -> None:
    transaction(identity.create, by=None, username="second", password=people.admin.password_hash, role="admin")
    first, second = signed_in("admin"), signed_in("second")
    assert decide(first, asked, "approve") == 303
    late = second.post(f"/admin/subscriptions/{asked}/decision", decision="deny", reason="No")
    assert late.status_code == 409
    page = read(late)
    assert page.alert.heading == "This request is decided already"
    assert "decided by admin" in page.alert
    assert page.buttons == []
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
        page = admin.page(path, query_string={"back": back})
        assert page.link("Approvals").href == led
        assert page.form(path).sends["back"] == led
    done = admin.post(path, decision="approve", back="/admin/approvals?status=all")
    assert done.headers["Location"] == "/admin/approvals?status=all"


@pytest.fixture
def renewal(people: People, guarded: Model) -> str:
    """The id of an active subscription that ends in five days, with a renewal asked for."""
    id = subscribe(people.stranger, guarded)
    transaction(
        lambda: subscriptions.decide(fresh_in(id), "approve", by=people.admin, expires_at=now() + timedelta(days=5))
    )
    transaction(lambda: subscriptions.ask_renewal(fresh_in(id), by=people.stranger, reason="Still sorting"))
    return id


def fresh_in(id: str) -> Subscription:
    found = db.session.get(Subscription, id)
    assert found is not None
    return found


def age(id: str, days: int) -> None:
    """Makes a request look as if it had waited that long."""

    def work() -> None:
        fresh_in(id).updated_at = now() - timedelta(days=days)

    transaction(work)


@pytest.mark.parametrize(
    ("days", "words", "colour"),
    [
        (0, "asked just now", None),
        (1, "waiting 1 day", None),
        (3, "waiting 3 days", "orange"),
        (6, "waiting 6 days", "red"),
    ],
)
def test_how_long_a_request_waits_is_told_in_words_and_colour(
    people: People, asked: str, signed_in: SignedIn, days: int, words: str, colour: str | None
) -> None:
    if days:
        age(asked, days)
    cell = signed_in("admin").page("/admin/approvals").row("owner").cell("Requested")
    assert cell.texts[-1] == words
    looks = [look for node in cell.node.within for look in node.classes if look in ("pf-m-orange", "pf-m-red")]
    assert looks == ([f"pf-m-{colour}"] if colour else [])


def test_a_renewal_waits_in_the_same_list_and_has_its_own_filter(
    people: People, asked: str, renewal: str, signed_in: SignedIn
) -> None:
    admin = signed_in("admin")
    page = admin.page("/admin/approvals")
    assert page.total == "2 results"
    assert page.menu.link("Approvals").badge == "2"
    assert page.row("stranger").cell("Purpose") == "Still sorting"
    assert page.row("stranger").field("Choose stranger, lab/guarded").value == renewal
    assert admin.page("/admin/approvals?kind=renewal").row_names == ["stranger"]
    assert admin.page("/admin/approvals?kind=request").row_names == ["owner"]


def test_the_list_is_sorted_and_exported_as_it_is_filtered(
    people: People, asked: str, renewal: str, signed_in: SignedIn
) -> None:
    admin = signed_in("auditor")
    for sort, names in (("-person", ["stranger", "owner"]), ("person", ["owner", "stranger"])):
        assert admin.page(f"/admin/approvals?sort={sort}").row_names == names
    file = admin.get("/admin/approvals?q=letters&format=csv", buffered=True)
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert [(row["user"], row["waits_for"], row["purpose"]) for row in rows] == [
        ("owner", "request", "Sorting <letters>")
    ]
    kinds = {row["waits_for"] for row in admin.get("/admin/approvals?format=json", buffered=True).get_json()["data"]}
    assert kinds == {"request", "renewal"}


def test_who_decides_sees_the_persons_access_spend_and_former_requests(
    people: People, guarded: Model, small: Model, signed_in: SignedIn
) -> None:
    subscribe(people.owner, small)
    first = subscribe(people.owner, guarded)
    transaction(lambda: subscriptions.decide(fresh_in(first), "deny", by=people.admin, reason="Come back in May"))
    id = subscribe(people.owner, guarded)
    moment = now()
    use(people.owner, small, int(moment.timestamp() * 1000), cost_nano=3_000_000_000)
    before = datetime.combine(moment.date().replace(day=1), time(), UTC) - timedelta(days=1)
    use(people.owner, guarded, int(before.timestamp() * 1000), cost_nano=7_000_000_000)
    for fragment in (False, True):
        page = signed_in("auditor").page(f"/admin/subscriptions/{id}/decision", fragment=fragment)
        assert page.definition("Spent by this person") == "$3.00 this month, $7.00 last month"
        assert "$1.00 in" in page.definition("Price of the model")
        [former] = page.table("Earlier requests for this model").rows
        assert (former.cell("Status"), former.cell("Comment")) == ("Denied", "Come back in May")
        assert "small" in page.texts[page.texts.index("Other access of owner") :]


def test_an_approved_renewal_ends_later_and_a_denied_one_as_before(
    people: People, renewal: str, signed_in: SignedIn
) -> None:
    admin = signed_in("admin")
    end = fresh(renewal).expires_at
    assert end is not None
    path = f"/admin/subscriptions/{renewal}/decision"
    offered = admin.page(path).field("Last day of access").value
    assert offered > end.date().isoformat()
    assert admin.post(path, decision="deny").status_code == 422
    assert admin.post(path, decision="deny", reason="Use the small one").status_code == 303
    found = fresh(renewal)
    assert (found.status, found.expires_at, found.renewal_asked_at) == ("active", end, None)
    transaction(lambda: subscriptions.ask_renewal(fresh_in(renewal), by=people.stranger, reason="Please"))
    sooner = admin.post(path, decision="approve", expires_on=now().date().isoformat())
    assert sooner.status_code == 422
    assert "later than the current expiry" in read(sooner).errors["Last day of access"]
    assert admin.post(path, decision="approve", expires_on=offered).status_code == 303
    found = fresh(renewal)
    assert (found.status, found.renewal_asked_at, found.renewal_reason) == ("active", None, None)
    assert found.expires_at is not None
    assert found.expires_at > end
    assert [step.status for step in found.timeline] == [
        "pending", "active", "renewal-asked", "renewal-denied", "renewal-asked", "renewed",
    ]  # fmt: skip


def test_access_is_suspended_and_resumed_from_the_same_page(people: People, asked: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    path = f"/admin/subscriptions/{asked}/decision"
    assert admin.page(path).buttons == ["Approve", "Deny"]
    assert decide(admin, asked, "suspend") == 409
    assert decide(admin, asked, "approve") == 303
    assert admin.page(path).buttons == ["Suspend"]
    assert decide(admin, asked, "suspend", reason="Too many calls") == 303
    assert fresh(asked).status == "suspended"
    assert admin.page(path).buttons == ["Resume"]
    assert decide(admin, asked, "resume") == 303
    assert fresh(asked).status == "active"


def test_many_are_decided_each_by_itself(
    people: People, asked: str, renewal: str, small: Model, signed_in: SignedIn
) -> None:
    other = subscribe(people.owner, small)  # nothing to approve
    admin = signed_in("admin")
    choice = admin.page("/admin/approvals").row("owner").field("Choose owner, lab/guarded")
    assert (choice.sent_as, choice.value) == ("ids", asked)
    chosen = admin.page("/admin/approvals/decisions", query_string={"ids": [asked, other, renewal]})
    assert set(chosen.form("/admin/approvals/decisions").sends.getlist("ids")) == {asked, other, renewal}
    answer = admin.post("/admin/approvals/decisions", decision="approve", ids=[asked, other, renewal, "nothing"])
    assert answer.status_code == 200
    page = read(answer)
    assert page.heading == "2 of 4 approved"
    assert sorted((row.cell("Model").text, row.cell("Result").text) for row in page.rows) == [
        ("lab/guarded", "Approved"),
        ("lab/guarded", "Approved"),
        ("small", "Not done This subscription is active; approve needs one that is pending."),
        ("–", "Not done This subscription does not exist."),
    ]
    assert [fresh(id).status for id in (asked, other, renewal)] == ["active"] * 3
    assert fresh(renewal).expires_at is None
    again = admin.post("/admin/approvals/decisions", decision="approve", ids=[asked])
    assert read(again).heading == "0 of 1 approved"


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"decision": "deny", "reason": " "}, "Enter a reason"),
        ({"decision": ""}, "Choose what to decide."),
        ({"decision": "approve", "expires_on": "2001-01-01"}, "Enter today or a later day."),
        ({"decision": "approve", "ids": []}, "Nothing is chosen."),
    ],
)
def test_a_bad_decision_on_many_decides_nothing(
    people: People, asked: str, signed_in: SignedIn, form: dict[str, str], told: str
) -> None:
    answer = signed_in("admin").post("/admin/approvals/decisions", **{"ids": [asked], **form})
    assert answer.status_code == 422
    assert told in read(answer).alert
    assert fresh(asked).status == "pending"


def test_a_budget_that_is_no_amount_is_told_of_each(people: People, asked: str, signed_in: SignedIn) -> None:
    answer = signed_in("admin").post("/admin/approvals/decisions", decision="approve", ids=[asked], budget="much")
    page = read(answer)
    assert page.heading == "0 of 1 approved"
    assert "an amount such as 12.50" in page.row("owner").cell("Result")
    assert fresh(asked).status == "pending"


def test_who_may_only_read_sees_all_of_it_with_the_controls_locked(
    people: People, asked: str, signed_in: SignedIn
) -> None:
    auditor = signed_in("auditor")
    for path in (
        "/admin/approvals",
        f"/admin/subscriptions/{asked}/decision",
        f"/admin/approvals/decisions?ids={asked}",
    ):
        page = auditor.page(path)
        assert usable(page) == []
        assert READ_ONLY in [button.reason for button in page.buttons]
    assert auditor.post("/admin/approvals/decisions", decision="approve", ids=[asked]).status_code == 403
    assert decide(auditor, asked, "approve") == 403
    assert signed_in("owner").get("/admin/approvals/decisions").status_code == 403
    assert fresh(asked).status == "pending"
