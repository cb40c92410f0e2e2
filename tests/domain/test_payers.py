"""Payers: scopes by the names that people know, the same wherever they are told, however many are asked for."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from app.domain import budgets, keys, payers, subscriptions, teams
from app.domain.budgets import Budget
from app.domain.payers import Scope
from app.extensions import db, transaction
from app.metering.scopes import member_id
from app.workflows import budget_requests
from tests.house import People, make_model


@pytest.fixture
def scopes(people: People) -> dict[Scope, str]:
    """One of each kind, and what it is called; the owner is in a team of their own."""
    owner = people.owner
    team = transaction(teams.create, by=owner, name="Research", rpm=None)
    model = transaction(make_model, people.admin)
    own, _ = transaction(subscriptions.request, owner, model, by=owner)
    of_team, _ = transaction(subscriptions.request, owner, model, by=owner, team=team)
    key, _ = transaction(keys.create, owner, by=owner, name="nightly")
    return {
        ("user", owner.id): "owner",
        ("key", key.id): "key nightly",
        ("subscription", own.id): "subscription of owner to small",
        ("subscription", of_team.id): "subscription of team Research to small",
        ("member", member_id(team.id, owner.id)): "owner in team Research",
        ("team", team.id): "team Research",
        ("organisation", "default"): "the organisation",
    }


def test_each_kind_has_its_name(scopes: dict[Scope, str]) -> None:
    found = payers.read(scopes)
    assert {scope: payer.name for scope, payer in found.items()} == scopes
    assert all(payer.scope == scope for scope, payer in found.items())


def test_a_person_is_charged_to_all_of_these_in_one_order(people: People, scopes: dict[Scope, str]) -> None:
    assert [payer.scope for payer in payers.paying_for(people.owner)] == list(scopes)
    assert [payer.kind for payer in payers.paying_for(people.stranger)] == ["user", "organisation"]


def test_a_payer_knows_who_is_cut_off_below_it(people: People, scopes: dict[Scope, str]) -> None:
    team = next(id for kind, id in scopes if kind == "team")
    below = {kind: [one.kind for one in payers.below(payers.named(kind, id))]
             for kind, id in (("team", team), ("user", "owner"), ("member", f"{team}:owner"))}  # fmt: skip
    assert below == {"team": ["member"], "user": ["key"], "member": []}


def test_budgets_and_requests_bear_the_team_and_the_person_of_their_scope(
    people: People, scopes: dict[Scope, str]
) -> None:
    for kind, id in scopes:
        transaction(budgets.set_budget, kind, id, by=people.admin, limit="1")
        payer = payers.read([(kind, id)])[kind, id]
        transaction(budget_requests.ask, payer, by=people.owner, amount="1", lasting=False, reason="x")
    asked = {one.scope: one.team_id for one in db.session.scalars(select(budget_requests.BudgetRequest))}
    kept = {(one.scope_kind, one.scope_id): (one.team_id, one.person_id) for one in db.session.scalars(select(Budget))}
    (team,) = teams.memberships_of(people.owner)
    assert kept == dict.fromkeys(scopes, (None, None)) | {
        ("user", people.owner.id): (None, people.owner.id),
        ("member", member_id(team.team_id, people.owner.id)): (team.team_id, people.owner.id),
        ("team", team.team_id): (team.team_id, None),
    }
    assert asked == {scope: team_id for scope, (team_id, _) in kept.items()}


def test_any_number_of_scopes_may_be_asked_for(people: People) -> None:
    many = [("key", f"none-{number}") for number in range(40_000)]
    assert list(payers.read([*many, ("user", people.owner.id)])) == [("user", people.owner.id)]


def test_an_alert_is_for_who_is_there_to_act(people: People, scopes: dict[Scope, str]) -> None:
    """The person whose it is, the owners of a team, admins for the organisation; nobody who is disabled."""
    found = {
        kind: [person.username for person in payers.people_to_alert(payers.read([(kind, id)])[kind, id])]
        for kind, id in scopes
        if kind != "subscription"
    }
    owner, admin = ["owner"], ["admin"]
    assert found == {"user": owner, "key": owner, "member": owner, "team": owner, "organisation": admin}
    transaction(lambda: [setattr(one, "disabled", True) for one in (people.owner, people.admin)])
    for kind, id in scopes:
        assert payers.people_to_alert(payers.read([(kind, id)])[kind, id]) == []
