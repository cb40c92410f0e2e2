"""Portico and a scripted LiteLLM, kept in step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from app.domain import audit, budgets, catalog, identity, keys, sync, teams
from app.domain.errors import Conflict
from app.domain.keys import ApiKey
from app.domain.sync import SyncLink, SyncPlan, SyncRun, SyncStep
from app.extensions import db, transaction
from app.litellm.client import LiteLLMFailed
from app.litellm.plan import Policy
from app.workflows import litellm_sync
from tests.house import People
from tests.services.litellm import MASTER_KEY, VERSION, LiteLLMServer

ALL = Policy(create="both", conflict="litellm", delete="both")


@pytest.fixture(scope="module")
def running() -> Iterator[LiteLLMServer]:
    server = LiteLLMServer()
    yield server
    server.stop()


@pytest.fixture
def there(running: LiteLLMServer, app: Flask, people: People, inside: Any) -> LiteLLMServer:
    """A LiteLLM without anything, to which an admin has connected Portico."""
    running.reset()
    transaction(lambda: sync.connect(by=admin(), url=running.url, master_key=MASTER_KEY))
    return running


def admin() -> Any:
    return identity.named("admin")


def policy(**more: Policy) -> None:
    transaction(lambda: sync.set_policies(more, by=admin()))  # type: ignore[arg-type]


def planned(*entities: Any) -> SyncPlan:
    id = transaction(lambda: litellm_sync.plan(entities or None, by=admin()).id)
    litellm_sync.make_plan(id)
    return sync.plan(id)


def told(plan: SyncPlan) -> list[tuple[Any, ...]]:
    return [(step.entity, step.act, step.side, step.name) for step in db.session.scalars(sync.steps(plan))]


def applied(plan: SyncPlan) -> SyncRun:
    id = transaction(lambda: litellm_sync.apply(sync.plan(plan.id), by=admin()).id)
    litellm_sync.go_on(id)
    return sync.run(id)


def synced() -> SyncRun:
    run = applied(planned())
    assert (run.state, run.errors) == ("done", [])
    return run


def fill(there: LiteLLMServer) -> None:
    there.user("bob", user_email="bob@example.org", max_budget=10, budget_duration="7d", rpm_limit=5)
    there.user("root", user_role="proxy_admin")
    there.user("default_user_id")
    there.team("t1", "Research", max_budget=100.5, tpm_limit=1000)
    there.member("t1", "bob", "admin", cap=2.5)
    there.key("bob's app", "bob", models=["small"], max_budget=1, budget_duration="1mo")
    there.model("small", input_cost_per_token=1.5e-7, max_input_tokens=8000, mode="chat")


def test_a_first_sync_brings_everything_that_the_policies_pull(there: LiteLLMServer) -> None:
    fill(there)
    policy(
        keys=Policy(create="pull"),
        users=Policy(create="pull"),
        teams=Policy(create="pull"),
        members=Policy(create="pull"),
    )
    plan = planned()
    assert told(plan) == [
        ("models", "create", "portico", "small"),
        ("users", "create", "portico", "bob"),
        ("teams", "create", "portico", "Research"),
        ("members", "create", "portico", "bob in Research"),
        ("keys", "create", "portico", "bob's app"),
    ]
    run = applied(plan)
    assert (run.state, run.errors, run.counts, run.done) == ("done", [], {"create": 5}, 5)
    bob, team = identity.named("bob"), teams.called("Research")
    assert team is not None
    assert (bob.email, bob.role, bob.password_hash, bob.rpm) == ("bob@example.org", "user", None, 5)
    weekly, cap, total = (
        budgets.find("user", bob.id),
        budgets.find("member", f"{team.id}:{bob.id}"),
        budgets.find("team", team.id),
    )
    assert [(one.limit_nano, one.period) for one in (weekly, cap, total) if one] == [
        (10 * 10**9, "week"), (2_500_000_000, "total"), (100_500_000_000, "total"),
    ]  # fmt: skip
    assert teams.role_in(bob, team.id) == "owner"
    model = catalog.model("small")
    assert (model.restricted, model.capabilities, model.context_window) == (True, ["chat"], 8000)
    assert model.price and model.price.decimals()["input_per_mtok"] == "0.15"
    assert [one.provider.name for one in model.deployments] == ["LiteLLM"]
    key = db.session.scalar(select(ApiKey))
    assert key is not None
    assert (key.name, key.person_id, key.models) == ("bob's app", bob.id, ["small"])
    assert not planned().counts["create"]
    assert not told(planned())


def test_people_teams_and_keys_are_pushed(there: LiteLLMServer) -> None:
    def work() -> None:
        identity.update(identity.named("owner"), by=admin(), email="owner@example.org", rpm=7)
        team = teams.create(by=identity.named("owner"), name="Ours")
        teams.update(team, by=admin(), budget={"limit": "12.5", "period": "month"})
        keys.create(identity.named("owner"), by=admin(), name="app", team=team)

    transaction(work)
    policy(keys=Policy(create="push"))
    synced()
    assert [(row["user_id"], row["user_email"], row["user_role"]) for row in there.users.values()] == [
        ("owner", "owner@example.org", "internal_user")
    ]
    [team] = there.teams.values()
    assert (team["team_alias"], team["max_budget"], team["budget_duration"]) == ("Ours", 12.5, "1mo")
    assert team["members_with_roles"] == [{"user_id": "owner", "user_email": None, "role": "admin"}]
    [key] = there.keys.values()
    assert (key["key_alias"], key["user_id"], key["team_id"]) == ("app", "owner", team["team_id"])
    assert not told(planned())
    kept = " ".join(f"{row.portico} {row.litellm}" for row in db.session.scalars(select(SyncLink)))
    assert "sk-" not in kept


def test_changes_go_both_ways_and_then_there_is_nothing_to_do(there: LiteLLMServer) -> None:
    fill(there)
    synced()
    transaction(lambda: identity.update(identity.named("bob"), by=admin(), tpm=99))
    there.users["bob"]["rpm_limit"] = 6
    there.teams["t1"]["team_alias"] = "Renamed"
    assert sorted(told(planned())) == [
        ("teams", "update", "portico", "Research"),
        ("users", "update", "litellm", "bob"),
        ("users", "update", "portico", "bob"),
    ]
    synced()
    assert identity.named("bob").rpm == 6
    assert there.users["bob"]["tpm_limit"] == 99
    assert teams.called("Renamed")
    assert not told(planned())


def test_a_conflict_waits_for_a_decision(there: LiteLLMServer) -> None:
    fill(there)
    synced()
    transaction(lambda: identity.update(identity.named("bob"), by=admin(), rpm=8))
    there.users["bob"]["rpm_limit"] = 6
    assert planned().counts == {"create": 0, "update": 0, "delete": 0, "conflict": 1}
    [conflict] = db.session.scalars(sync.conflicts()).all()
    [field] = conflict.fields
    assert field == {"name": "rpm_limit", "portico": 8, "litellm": 6, "last": 5}
    id = conflict.id
    transaction(lambda: sync.decide(id, "portico", by=admin()))
    assert not db.session.scalars(sync.conflicts()).all()
    synced()
    assert there.users["bob"]["rpm_limit"] == 8
    assert not told(planned())


def test_nothing_is_deleted_unless_a_policy_says_so(there: LiteLLMServer) -> None:
    fill(there)
    synced()
    del there.users["bob"]
    there.member("t1", "nobody")
    assert not told(planned("users"))
    policy(users=Policy(delete="pull"))
    assert told(planned("users")) == [("users", "delete", "portico", "bob")]


def test_a_step_is_done_anew_from_what_is_there_now(there: LiteLLMServer) -> None:
    fill(there)
    synced()
    there.users["bob"]["rpm_limit"] = 6
    plan = planned()
    there.users["bob"]["rpm_limit"] = 7  # since then
    run = applied(plan)
    assert run.state == "done"
    assert identity.named("bob").rpm == 7
    there.users["bob"]["rpm_limit"] = 9
    plan = planned()
    there.users["bob"]["rpm_limit"] = 7  # and back again: nothing is left to do
    run = applied(plan)
    assert (run.state, run.counts) == ("done", {"skipped": 1})


def test_a_run_that_litellm_breaks_off_is_resumed_where_it_was(there: LiteLLMServer) -> None:
    def work() -> None:
        for number in range(6):
            identity.create(by=admin(), username=f"p{number}", password=None, email=f"p{number}@example.org")

    transaction(work)
    plan = planned("users")
    left = [3]

    def break_off(method: str, path: str) -> Any:
        if path == "/user/new":
            left[0] -= 1
            if left[0] < 0:
                return 500, {}, {}
        return None

    there.before = break_off
    run = applied(plan)
    assert (run.state, run.done, run.total) == ("failed", 3, 6)
    there.before = lambda method, path: None
    id = run.id
    transaction(lambda: litellm_sync.resume(sync.run(id), by=admin()))
    litellm_sync.go_on(id)
    run = sync.run(id)
    assert (run.state, run.done) == ("done", 6)
    assert len([1 for method, path, _ in there.asked if path == "/user/new"]) == 3 + 1 + 3
    assert not told(planned("users"))


def test_what_litellm_did_before_the_answer_was_lost_is_not_done_twice(there: LiteLLMServer) -> None:
    transaction(lambda: identity.update(identity.named("owner"), by=admin(), email="owner@example.org"))
    plan = planned("users")
    there.user("owner", user_email="owner@example.org")
    run = applied(plan)
    assert (run.state, run.counts) == ("done", {"skipped": 1})
    assert not told(planned("users"))


def test_a_step_that_is_refused_leaves_the_others(there: LiteLLMServer) -> None:
    there.user("a/b", user_email="ab@example.org")
    there.user("bad name", user_email=None)
    run = applied(planned("users"))
    assert run.state == "failed"
    assert run.errors == ["bad name: Use 1 to 64 letters, digits and . _ @ + -, starting with a letter or digit."]
    assert identity.find("ab")


def test_applying_is_audited_as_the_admin_who_asked(there: LiteLLMServer) -> None:
    fill(there)
    transaction(lambda: identity.update(identity.named("owner"), by=admin(), email="owner@example.org"))
    synced()
    rows = db.session.scalars(audit.entries(actor="admin")).all()
    acts = {row.action for row in rows}
    assert {
        "sync.connect",
        "sync.apply",
        "sync.push",
        "person.create",
        "team.create",
        "team.member",
        "model.create",
    } <= acts
    assert MASTER_KEY not in str([row.detail for row in rows])


def test_a_plan_is_applied_once(there: LiteLLMServer) -> None:
    fill(there)
    plan = planned()
    first = applied(plan)
    assert applied(sync.plan(plan.id)).id == first.id
    there.user("new")
    old = planned()
    planned()
    with pytest.raises(Conflict, match="stale"):
        applied(old)


def test_a_failing_litellm_fails_the_plan_and_opens_the_breaker(there: LiteLLMServer) -> None:
    there.before = lambda method, path: (500, {}, {})
    for _ in range(2):
        plan = planned()
        assert plan.state == "failed"
    assert sync.standing().state == "open"
    before = len(there.asked)
    plan = planned()
    assert plan.error == "LiteLLM failed again and again, so it is left alone for a while."
    assert len(there.asked) == before


def test_a_connection_can_be_tried(there: LiteLLMServer) -> None:
    assert litellm_sync.test()[:2] == ("ok", VERSION)
    transaction(lambda: sync.connect(by=admin(), url=there.url, master_key="sk-another-one"))
    assert litellm_sync.test().result == "auth_error"


def test_without_a_connection_there_is_no_plan(there: LiteLLMServer) -> None:
    transaction(lambda: sync.forget(by=admin()))
    with pytest.raises(Conflict, match="not connected"):
        planned()
    assert sync.standing().state == "off"


def test_the_schedule_syncs_by_itself(there: LiteLLMServer) -> None:
    fill(there)
    transaction(lambda: sync.connect(by=admin(), url=there.url, master_key=None, interval_minutes=5))
    litellm_sync.look()
    [run] = db.session.scalars(sync.runs()).all()
    assert run.state == "running"
    litellm_sync.look()  # whose process died, or has not begun
    assert sync.run(run.id).state == "done"
    assert len(db.session.scalars(sync.plans()).all()) == 1


def test_a_list_is_read_page_by_page_and_not_by_thing(there: LiteLLMServer) -> None:
    for number in range(150):
        there.user(f"u{number}", user_email=f"u{number}@example.org")
    plan = planned("users")
    assert plan.counts["create"] == 150
    assert len(there.asked) == 2
    assert len(db.session.scalars(select(SyncStep)).all()) == 150


def test_a_failure_is_no_step(there: LiteLLMServer) -> None:
    there.before = lambda method, path: (502, {}, {})
    with pytest.raises(LiteLLMFailed), litellm_sync.connected(attempts=1) as litellm:
        litellm.users()
    assert sync.standing().state == "failing"
