"""Budgets over the management API: what happens near a limit, credits, and asking for more."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from flask import Flask

from app import store
from app.domain import notices
from app.extensions import db
from app.ledger.recount import server_run
from tests.house import Once, People, Program, sign_in


class Three:
    """The admin, the owner of a team and key, and a member of that team, with a budget of 5 on each scope."""

    def __init__(self, app: Flask, people: People, wire: redis.Redis) -> None:
        wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})
        self.app, self.people = app, people
        self.admin, self.owner, self.member = (sign_in(app, name) for name in ("admin", "owner", "stranger"))
        self.auditor = sign_in(app, "auditor")
        team = self.owner.post("/api/teams", json={"name": "Lab"}).get_json()["id"]
        self.owner.put(f"/api/teams/{team}/members/stranger", json={"role": "member"})
        self.key = self.owner.post("/api/keys", json={"name": "app"}).get_json()["id"]
        self.team_key = self.member.post("/api/keys", json={"name": "shared", "team_id": team}).get_json()["id"]
        self.scopes = {
            "key": self.key, "team_key": self.team_key, "user": "owner", "team": team, "member": f"{team}:stranger",
            "organisation": "default",
        }  # fmt: skip
        for scope in self.scopes:
            answer = self.admin.put(self.path(scope), json={"limit": "5"})
            assert answer.status_code == 200, answer.text

    def kind(self, scope: str) -> str:
        return "key" if scope == "team_key" else scope

    def path(self, scope: str) -> str:
        return f"/api/budgets/{self.kind(scope)}/{self.scopes[scope]}"

    def ask(self, who: Program, scope: str, **more: Any) -> Any:
        body = {"scope": self.kind(scope), "id": self.scopes[scope], "amount": "2", "reason": "A report.", **more}
        return who.post("/api/budget-requests", json=body)

    def budget(self, scope: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.admin.get(self.path(scope)).get_json()
        return answer

    def told(self, person: Any) -> list[tuple[str, str]]:
        with self.app.app_context():
            return [(one.kind, one.title) for one in db.session.scalars(notices.addressed_to(person))]


@pytest.fixture
def three(app: Flask, visitors: People, wire: redis.Redis, once: Once) -> Three:
    made = once("three", lambda: Three(app, visitors, wire))
    made.people = visitors
    return made


def test_thresholds_and_actions_are_set_with_a_budget_and_stay(three: Three) -> None:
    usual = three.budget("key")
    assert (usual["thresholds"], usual["action"], usual["action_percent"]) == ([50, 80, 100], "notify", 100)
    body = {"limit": "5", "thresholds": [90, 10, 90], "action": "refuse", "action_percent": 80}
    changed = three.admin.put(three.path("key"), json=body).get_json()
    assert (changed["limit"], changed["enforced_limit"], changed["remaining"]) == ("5", "4", "4")
    assert changed["thresholds"] == [10, 90]
    kept = three.owner.put(three.path("key"), json={"limit": "10"}).get_json()
    assert (kept["limit"], kept["enforced_limit"], kept["thresholds"]) == ("10", "8", [10, 90])
    assert three.owner.get(f"/api/keys/{three.key}").get_json()["budget"]["limit"] == "10"


@pytest.mark.parametrize(
    "body",
    [
        {"thresholds": [0]}, {"thresholds": [101]}, {"thresholds": list(range(1, 13))}, {"thresholds": "50"},
        {"action": "explode"}, {"action_percent": 0}, {"action_percent": 101},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(three: Three, body: dict[str, Any]) -> None:
    assert three.admin.put(three.path("key"), json={"limit": "5", **body}).status_code == 422


def test_actions_are_for_admins(three: Three) -> None:
    assert three.owner.put(three.path("key"), json={"limit": "5", "action": "suspend"}).status_code == 403
    assert three.admin.put(three.path("key"), json={"limit": "5", "action": "suspend"}).status_code == 200
    assert three.admin.put(three.path("user"), json={"limit": "5", "action": "suspend"}).status_code == 422


def test_admins_give_credits(three: Three) -> None:
    given = three.admin.post(f"{three.path('member')}/credits", json={"amount": "1.5", "reason": "An outage."})
    assert given.status_code == 201
    told = given.get_json()
    assert (told["scope"], told["scope_id"], told["amount"], told["by"]) == (
        "member", three.scopes["member"], "1.5", "admin",
    )  # fmt: skip
    after = three.budget("member")
    assert (after["spent"], after["limit"], after["remaining"]) == ("0", "5", "6.5")


def test_credits_are_for_nobody_else(three: Three) -> None:
    body = {"amount": "1", "reason": "Please."}
    for who in (three.owner, three.member, three.auditor):
        assert three.owner.post(f"{three.path('key')}/credits", json=body).status_code == 403, who
    assert three.admin.post("/api/budgets/user/nobody/credits", json=body).status_code == 404
    assert three.admin.post(f"{three.path('key')}/credits", json={"amount": "0", "reason": "x"}).status_code == 422
    assert three.admin.post(f"{three.path('key')}/credits", json={"amount": "1", "reason": " "}).status_code == 422
    three.admin.delete(three.path("key"))
    assert three.admin.post(f"{three.path('key')}/credits", json=body).status_code == 409


@pytest.mark.parametrize(
    ("scope", "by_owner", "by_member"),
    [
        ("key", 201, 404), ("team_key", 403, 201), ("user", 201, 404), ("team", 201, 201), ("member", 403, 201),
        ("organisation", 201, 201),
    ],
)  # fmt: skip
def test_whoever_it_pays_for_may_ask(three: Three, scope: str, by_owner: int, by_member: int) -> None:
    assert (three.ask(three.owner, scope).status_code, three.ask(three.member, scope).status_code) == (
        by_owner, by_member,
    )  # fmt: skip


def test_asking_once_is_enough(three: Three) -> None:
    made = three.ask(three.owner, "user")
    assert three.ask(three.owner, "user").status_code == 409
    assert three.owner.delete(f"/api/budget-requests/{made.get_json()['id']}").status_code == 204
    assert three.ask(three.owner, "user").status_code == 201


def test_what_has_no_limit_needs_no_more(three: Three) -> None:
    three.admin.delete(three.path("user"))
    assert three.ask(three.owner, "user").status_code == 409


@pytest.mark.parametrize("lasting", [False, True])
def test_a_grant_gives_room_and_is_told(three: Three, lasting: bool) -> None:
    asked = three.ask(three.owner, "user", lasting=lasting).get_json()
    assert ("budget.request", "owner requests 2 USD more for owner") in three.told(three.people.admin)
    path = f"/api/budget-requests/{asked['id']}/decision"
    decided = three.admin.post(path, json={"decision": "grant", "amount": "3", "reason": "Go on."})
    assert decided.status_code == 200, decided.text
    told = decided.get_json()
    assert (told["status"], told["granted"], told["decided_by"]) == ("granted", "3", "admin")
    after = three.budget("user")
    assert (after["limit"], after["spent"], after["remaining"]) == (("8", "0", "8") if lasting else ("5", "0", "8"))
    how = "per period" if lasting else "this period"
    assert three.told(three.people.owner)[0] == ("budget.granted", f"3 USD more for owner, {how}")
    assert three.admin.post(path, json={"decision": "grant"}).status_code == 409
    assert three.budget("user")["remaining"] == "8"


def test_a_denial_needs_a_reason_and_is_told(three: Three) -> None:
    asked = three.ask(three.owner, "user").get_json()
    path = f"/api/budget-requests/{asked['id']}/decision"
    assert three.admin.post(path, json={"decision": "deny"}).status_code == 422
    assert three.admin.post(path, json={"decision": "deny", "reason": "Later."}).get_json()["status"] == "denied"
    assert three.told(three.people.owner)[0] == ("budget.denied", "Budget increase for owner denied")
    assert three.budget("user")["remaining"] == "5"


@pytest.mark.parametrize(
    ("scope", "by_owner"), [("team_key", 200), ("member", 200), ("team", 404), ("organisation", 404)]
)
def test_a_teams_owner_decides_on_its_keys_and_members(three: Three, scope: str, by_owner: int) -> None:
    asked = three.ask(three.member, scope).get_json()
    path, body = f"/api/budget-requests/{asked['id']}/decision", {"decision": "grant"}
    assert three.member.post(path, json=body).status_code == 403
    assert three.auditor.post(path, json=body).status_code == 403
    assert three.owner.post(path, json=body).status_code == by_owner
    if by_owner == 200:
        assert three.budget(scope)["remaining"] == "7"
        assert three.told(three.people.stranger)[0][0] == "budget.granted"


def test_everybody_sees_what_concerns_them(three: Three) -> None:
    own = three.ask(three.member, "team_key").get_json()
    other = three.ask(three.owner, "user").get_json()

    def seen(who: Program, **query: str) -> list[str]:
        rows = who.get("/api/budget-requests", query_string=query).get_json()["data"]
        return [row["id"] for row in rows]

    assert seen(three.member) == [own["id"]]
    assert seen(three.owner) == seen(three.admin) == seen(three.auditor) == [other["id"], own["id"]]
    assert seen(three.admin, status="granted") == []
    assert three.member.get(f"/api/budget-requests/{other['id']}").status_code == 404
    assert three.member.delete(f"/api/budget-requests/{other['id']}").status_code == 404
    assert three.owner.delete(f"/api/budget-requests/{own['id']}").status_code == 403
