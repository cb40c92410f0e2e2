"""Budgets: what pays for one's calls, how it stands, and asking for more of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import redis
from flask import Flask

from app import store
from app.domain import budgets, catalog, keys, payers, teams
from app.domain.teams import Team
from app.extensions import db, transaction
from app.ledger.recount import server_run
from app.metering import money
from app.workflows import alerts, budget_requests, offboarding, publication
from app.workflows.budget_requests import BudgetRequest
from tests.blueprints.portal.conftest import Browser, make_key
from tests.house import People
from tests.page import read

SignIn = Callable[[str], Browser]
ASK = {"amount": "2", "lasting": "once", "reason": "A report."}


@pytest.fixture
def team(people: People, wire: redis.Redis) -> Team:
    """A team that the stranger owns and the owner is in; the meter is open."""
    wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})
    made = transaction(teams.create, by=people.stranger, name="Lab")
    transaction(teams.put_member, made, people.owner, by=people.stranger)
    return made


def limit(people: People, kind: str, id: str, amount: str = "5", **more: object) -> None:
    transaction(budgets.set_budget, kind, id, by=people.admin, limit=amount, period="month", **more)  # type: ignore[arg-type]
    publication.catch_up()


def spend(wire: redis.Redis, kind: str, id: str, amount: str, *, held: str = "0") -> None:
    budget = budgets.find(kind, id)
    assert budget is not None
    from app.metering import periods

    name = periods.window_of(budget.spec, int(budget.updated_at.timestamp() * 1000)).name
    wire.hset(store.spent(kind, id, name), mapping={"spent": money.parse(amount), "held": money.parse(held)})


def asked(people: People, kind: str, id: str, *, lasting: bool = False) -> str:
    payer = payers.named(kind, id)
    return transaction(budget_requests.ask, payer, by=people.owner, amount="2", lasting=lasting, reason="A report.").id


def test_everything_that_pays_for_ones_calls_is_listed(
    people: People, team: Team, signed_in: SignIn, wire: redis.Redis
) -> None:
    key_id, _ = make_key(people.owner, name="nightly")
    for kind, id in (
        ("user", people.owner.id), ("key", key_id), ("team", team.id), ("member", f"{team.id}:{people.owner.id}"),
        ("organisation", "default"), ("user", people.stranger.id),
    ):  # fmt: skip
        limit(people, kind, id)
    spend(wire, "key", key_id, "4.5", held="0.25")
    listed = signed_in("owner").page("/budgets").table("Budgets that pay for your calls")
    assert listed.row_names == ["owner", "key nightly", "owner in team Lab", "team Lab", "the organisation"]
    row = listed.row("key nightly")
    assert "$4.50 of $5.00" in row.cell("Spent")
    assert (row.cell("Reserved"), row.cell("Remaining")) == ("$0.25", "$0.25")
    assert row.cell("State") == "Near its limit"
    assert listed.row("owner").cell("State") == "Within its limit"


@pytest.mark.parametrize("held", ["0", "0.75"])
def test_by_how_much_a_budget_is_overspent_is_said_wherever_it_is_shown(
    people: People, team: Team, small: catalog.Model, signed_in: SignIn, wire: redis.Redis, held: str
) -> None:
    key_id, _ = make_key(people.owner, name="nightly")
    for kind, id in (("user", people.owner.id), ("key", key_id), ("team", team.id)):
        limit(people, kind, id)
        spend(wire, kind, id, "5.19", held=held)
    browser = signed_in("owner")
    for page in (
        "/home", "/budgets", "/usage", f"/keys/{key_id}", f"/teams/{team.id}", "/budgets/user/owner",
        f"/budgets/key/{key_id}", f"/budgets/team/{team.id}",
    ):  # fmt: skip
        text = re.sub(r"<[^>]+>", "", browser.get(page).text)
        assert "$0.19 over" in text, page
        assert "$0.00 remaining" not in text, page
        assert ("You are $0.19 over" in text) == (page in ("/home", "/budgets/user/owner")), page


def test_without_any_limit_the_page_says_so(people: People, signed_in: SignIn) -> None:
    assert "No budget bounds you" in signed_in("owner").page("/budgets").headings


def test_the_list_leaves_as_a_file(people: People, signed_in: SignIn) -> None:
    limit(people, "user", people.owner.id)
    rows = signed_in("owner").get("/budgets?format=json", buffered=True).get_json()["data"]
    assert [(row["scope"], row["id"], row["limit"], row["state"]) for row in rows] == [("user", "owner", "5", "ok")]


@pytest.mark.parametrize(
    ("who", "scope", "expected"),
    [
        ("owner", "user", 200), ("stranger", "user", 404), ("admin", "user", 200), ("auditor", "user", 200),
        ("owner", "team", 200), ("stranger", "team", 200), ("owner", "member", 200), ("stranger", "member", 200),
        ("owner", "key", 200), ("stranger", "key", 404), ("owner", "organisation", 200),
        ("stranger", "nothing", 404),
    ],
)  # fmt: skip
def test_whoever_it_concerns_sees_its_page(
    people: People, team: Team, signed_in: SignIn, who: str, scope: str, expected: int
) -> None:
    key_id, _ = make_key(people.owner)
    ids = {
        "user": "owner", "team": team.id, "member": f"{team.id}:owner", "key": key_id, "organisation": "default",
        "nothing": "x",
    }  # fmt: skip
    assert signed_in(who).get(f"/budgets/{scope}/{ids[scope]}").status_code == expected


def test_the_address_of_a_refusal_leads_to_the_page(people: People, team: Team, signed_in: SignIn) -> None:
    """It names people by their ids where the gateway knows no username."""
    assert signed_in("owner").get(f"/budgets/member/{team.id}:{people.owner.id}").status_code == 200


def test_who_is_cut_off_is_said_with_the_reason(
    people: People, team: Team, signed_in: SignIn, wire: redis.Redis, small: catalog.Model
) -> None:
    cap = f"{team.id}:{people.owner.id}"
    limit(people, "team", team.id)
    limit(people, "member", cap)
    spend(wire, "member", cap, "5")
    page = signed_in("stranger").page(f"/budgets/team/{team.id}")
    assert "Blocked by a budget of their own: owner in team Lab." in page.section("Budgets inside of it")
    cut_off = signed_in("owner").page(f"/budgets/member/{team.id}:owner")
    assert cut_off.alert.heading == "Requests are blocked"
    assert cut_off.status == "Used up"


def test_a_budget_that_refuses_early_says_so_with_the_numbers_of_the_meter(
    people: People, signed_in: SignIn, wire: redis.Redis
) -> None:
    limit(people, "user", people.owner.id, "10", action="refuse", action_percent=80)
    spend(wire, "user", people.owner.id, "6")
    page = signed_in("owner").page("/budgets/user/owner")
    assert page.alert.heading == "New work is refused before the limit"
    assert "$6.00 of $8.00" in page.section("Now")
    assert page.definition("Remaining") == "$2.00"


def test_credits_beyond_what_was_spent_are_shown(people: People, signed_in: SignIn, wire: redis.Redis) -> None:
    limit(people, "user", people.owner.id)
    budget = budgets.find("user", people.owner.id)
    assert budget is not None
    spend(wire, "user", people.owner.id, "0")
    for name in wire.scan_iter(match=store.spent("user", people.owner.id, "*")):
        wire.hset(name, "spent", -3 * money.NANO)
    answer = signed_in("owner").get("/budgets/user/owner")
    assert "credits are more than what was spent" in read(answer).definition("Spent")
    assert 'width="-' not in answer.text


def test_alerts_and_changes_are_told(people: People, signed_in: SignIn) -> None:
    limit(people, "user", people.owner.id)
    limit(people, "user", people.owner.id, "8", thresholds=[70])
    db.session.add(
        alerts.BudgetAlert(
            scope_kind="user", scope_id=people.owner.id, period="month-1", threshold=70, spent_nano=1, limit_nano=2
        )
    )
    db.session.commit()
    page = signed_in("owner").page("/budgets/user/owner")
    assert "limit: 5 → 8; alerts at: 50%, 80%, 100% → 70%" in page.section("History").items[0]
    assert page.table("Thresholds that were reached").column("Reached") == ["70%"]


def test_a_person_asks_for_more_and_takes_it_back(people: People, signed_in: SignIn) -> None:
    limit(people, "user", people.owner.id)
    browser, path = signed_in("owner"), "/budgets/user/owner"
    assert browser.post(f"{path}/requests", page=path, **ASK).status_code == 303
    assert "$2.00 for this period" in browser.page(path).section("Increase requested")
    found = db.session.query(BudgetRequest).one()
    assert (found.amount_nano, found.lasting, found.status) == (2 * money.NANO, False, "pending")
    assert browser.post(f"/budget-requests/{found.id}/withdrawal").status_code == 303
    db.session.rollback()
    assert found.status == "withdrawn"


@pytest.mark.parametrize("wrong", [{"amount": "words"}, {"amount": ""}, {"reason": ""}, {"amount": "0"}])
def test_a_request_that_makes_no_sense_comes_back(people: People, signed_in: SignIn, wrong: dict[str, str]) -> None:
    limit(people, "user", people.owner.id)
    answer = signed_in("owner").post("/budgets/user/owner/requests", **{**ASK, **wrong})
    assert answer.status_code == 422
    assert read(answer).alert.heading == "Please check these fields"
    assert [field.sent_as for field in read(answer).fields if field.error] == [*wrong]
    assert db.session.query(BudgetRequest).count() == 0


def test_somebody_whom_it_does_not_pay_for_is_not_offered_to_ask(people: People, team: Team, signed_in: SignIn) -> None:
    limit(people, "member", f"{team.id}:{people.owner.id}")
    path = f"/budgets/member/{team.id}:owner"
    browser = signed_in("stranger")
    assert "Request an increase" not in browser.page(path).headings
    assert browser.post(f"{path}/requests", **ASK).status_code == 403


def test_an_admin_decides_with_the_history_in_sight(people: People, team: Team, signed_in: SignIn) -> None:
    limit(people, "user", people.owner.id)
    id = asked(people, "user", "owner", lasting=True)
    admin = signed_in("admin")
    assert f"/budget-requests/{id}" in admin.page("/admin/budget-requests").row("owner").hrefs
    assert "If it goes on as so far" in admin.page(f"/budget-requests/{id}").section("What it spends")
    answer = admin.post(f"/budget-requests/{id}", decision="grant", amount="3", reason="Fine.")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/budget-requests")
    db.session.rollback()
    budget = budgets.find("user", people.owner.id)
    assert budget is not None
    assert budget.limit_nano == 8 * money.NANO
    assert "3 USD more for owner, per period" in signed_in("owner").page("/notices").rows[0].cell("Notification")


def test_a_denial_without_a_reason_comes_back(people: People, signed_in: SignIn) -> None:
    limit(people, "user", people.owner.id)
    id = asked(people, "user", "owner")
    admin = signed_in("admin")
    assert admin.post(f"/budget-requests/{id}", decision="deny", amount="2", reason="").status_code == 422
    assert admin.post(f"/budget-requests/{id}", decision="explode", amount="2", reason="").status_code == 422
    assert admin.post(f"/budget-requests/{id}", decision="deny", amount="", reason="Later.").status_code == 303


def test_a_teams_owner_decides_on_a_members_cap(people: People, team: Team, signed_in: SignIn) -> None:
    limit(people, "member", f"{team.id}:{people.owner.id}")
    id = asked(people, "member", f"{team.id}:owner")
    lead = signed_in("stranger")
    assert not lead.page(f"/budget-requests/{id}").button("Grant").disabled
    assert lead.post(f"/budget-requests/{id}", decision="grant", amount="2", reason="").status_code == 303
    standing = budgets.standing("member", f"{team.id}:{people.owner.id}")
    assert standing.remaining_nano == 7 * money.NANO


def test_a_teams_page_tells_its_owners_who_asks(people: People, team: Team, signed_in: SignIn) -> None:
    cap = f"{team.id}:{people.owner.id}"
    limit(people, "member", cap)
    id = asked(people, "member", f"{team.id}:owner")
    asking = signed_in("stranger").page(f"/teams/{team.id}").section("Asked for more")
    assert asking.link("Details of the request of owner").href == f"/budget-requests/{id}"
    assert "Asked for more" not in signed_in("owner").page(f"/teams/{team.id}").headings


def test_what_is_gone_can_only_be_denied(people: People, team: Team, signed_in: SignIn) -> None:
    cap = f"{team.id}:{people.owner.id}"
    limit(people, "member", cap)
    id = asked(people, "member", f"{team.id}:owner")
    transaction(offboarding.dissolve, team, by=people.admin)
    admin = signed_in("admin")
    assert admin.page(f"/budget-requests/{id}").heading == "More for what is gone"
    assert admin.post(f"/budget-requests/{id}", decision="grant", amount="2", reason="").status_code == 303
    db.session.rollback()
    assert db.session.get_one(BudgetRequest, id).status == "pending"
    assert admin.post(f"/budget-requests/{id}", decision="deny", amount="", reason="Gone.").status_code == 303
    db.session.rollback()
    assert db.session.get_one(BudgetRequest, id).status == "denied"
    assert signed_in("owner").get("/budgets").status_code == 200


def test_nobody_else_decides(people: People, team: Team, signed_in: SignIn) -> None:
    limit(people, "team", team.id)
    id = asked(people, "team", team.id)
    answers = {
        who: (
            signed_in(who).get(f"/budget-requests/{id}").status_code,
            signed_in(who).post(f"/budget-requests/{id}", decision="grant", amount="2", reason="").status_code,
        )
        for who in ("owner", "stranger", "auditor")
    }
    assert answers == {"owner": (200, 403), "stranger": (404, 404), "auditor": (200, 403)}
    decision = signed_in("auditor").page(f"/budget-requests/{id}").section("Decision")
    assert {button.reason for button in decision.buttons} == {"Read-only access: your role can’t decide on requests."}
    assert "Grant" not in signed_in("owner").page(f"/budget-requests/{id}").buttons


def test_what_others_asked_is_not_told(people: People, team: Team, signed_in: SignIn) -> None:
    limit(people, "organisation", "default")
    asked(people, "organisation", "default")
    assert "A report." not in signed_in("stranger").get("/budgets/organisation/default").text
    told = signed_in("admin").page("/budgets/organisation/default").section("Requests for more")
    assert told.row("owner").cell("Why") == "A report."


def test_what_the_whole_organisation_spends_is_for_admins_alone(
    people: People, team: Team, signed_in: SignIn, wire: redis.Redis, small: catalog.Model
) -> None:
    key_id, _ = make_key(people.owner)
    limit(people, "organisation", "default", "7654")
    limit(people, "organisation", "default", "4321")
    spend(wire, "organisation", "default", "1234.5")
    id = asked(people, "organisation", "default")
    pages = ("/budgets/organisation/default", "/budgets", f"/budget-requests/{id}", f"/keys/{key_id}")
    numbers = ("1,234.5", "4,321", "3,086.5", "7654", "4321")
    owner = signed_in("owner")
    for path in pages:
        page = owner.get(path)
        assert page.status_code == 200
        assert not [number for number in numbers if number in page.text], path
    [row] = owner.get("/budgets?format=json", buffered=True).get_json()["data"]
    assert {row[name] for name in ("limit", "enforced_limit", "spent", "reserved", "remaining")} == {None}
    assert (row["scope"], row["state"]) == ("organisation", "ok")
    assert signed_in("auditor").page("/budgets/organisation/default").definition("Spent") == "$1,234.50"

    spend(wire, "organisation", "default", "4321")  # where the answer 429 leads
    answer = signed_in("stranger").get("/budgets/organisation/default")
    page = read(answer)
    assert page.alert.heading == "Everyone’s requests are blocked"
    assert "until it resets" in page.alert
    assert "An administrator can raise it." in page.alert
    assert page.section("Request an increase").form("/budgets/organisation/default/requests")
    assert not [number for number in numbers if number in answer.text]


def test_a_revoked_key_pays_for_nothing_any_more(app: Flask, people: People, signed_in: SignIn) -> None:
    key_id, _ = make_key(people.owner)
    limit(people, "key", key_id)
    key = keys.get_visible(people.owner, key_id)
    transaction(keys.revoke, key, by=people.owner)
    assert "No budget bounds you" in signed_in("owner").page("/budgets").headings


def test_the_page_of_a_request_tells_its_person_nothing_of_what_others_asked(people: People, signed_in: SignIn) -> None:
    limit(people, "organisation", "default")
    everybodys = payers.named("organisation", "default")
    reasons = {"owner": "My own report.", "stranger": "A plan of another."}
    ids = {
        person.username: transaction(
            budget_requests.ask, everybodys, by=person, amount="2", lasting=False, reason=reasons[person.username]
        ).id
        for person in (people.owner, people.stranger)
    }
    path = f"/budget-requests/{ids['owner']}"
    assert reasons["stranger"] not in signed_in("owner").get(path).text
    assert reasons["stranger"] in signed_in("admin").get(path).text


def test_exports_are_throttled(signed_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = signed_in("owner")
    monkeypatch.setattr("app.domain.throttles.A_PERSON", 2)
    assert [owner.get("/budgets?format=csv").status_code for _ in range(3)] == [200, 200, 429]
    assert owner.get("/budgets").status_code == 200
