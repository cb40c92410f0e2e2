"""Scopes: who pays for a call, and a member's id, joined and cut in one place."""

from __future__ import annotations

from typing import Any

import pytest

from app.directory import CallerRecord, ScopeKind
from app.metering.scopes import address_of, chain_of, member_id, team_and_person

TEAM, PERSON, OTHER = "t" * 36, "p" * 36, "o" * 36


def caller(**values: Any) -> CallerRecord:
    return CallerRecord(**{"id": "k", "kind": "key", "name": "app", "person_id": PERSON, "username": "ada", **values})


def test_a_personal_key_is_paid_by_its_owner() -> None:
    chain = chain_of(caller(), "s")
    assert [(kind, id) for kind, id, _ in chain] == [
        ("key", "k"), ("subscription", "s"), ("user", PERSON), ("organisation", "default"),
    ]  # fmt: skip


def test_a_team_s_key_is_paid_by_the_member_s_cap_and_the_team_instead_of_the_owner() -> None:
    chain = chain_of(caller(team_id=TEAM, team="Research"), "s")
    assert [scope.kind for scope in chain] == ["key", "subscription", "member", "team", "organisation"]
    assert chain[2:4] == (("member", f"{TEAM}:{PERSON}", "Research/ada"), ("team", TEAM, "Research"))
    assert address_of(caller(team_id=TEAM), chain[2]) == f"{TEAM}:ada"


def test_an_access_token_is_paid_by_its_owner_and_the_subscription_alone() -> None:
    assert [scope.kind for scope in chain_of(caller(kind="token"), "s")] == ["subscription", "user", "organisation"]


def test_what_may_pay_through_several_subscriptions_has_them_all_at_their_place() -> None:
    for kind, before in (("key", ["key"]), ("token", [])):
        chain = chain_of(caller(kind=kind), "s", "t")
        assert [scope.kind for scope in chain] == [*before, "subscription", "subscription", "user", "organisation"]
        assert [scope.id for scope in chain if scope.kind == "subscription"] == ["s", "t"]
    assert [scope.kind for scope in chain_of(caller(), *())] == ["key", "user", "organisation"]


def test_what_is_joined_is_cut_into_the_same_two() -> None:
    assert team_and_person("member", member_id(TEAM, PERSON)) == (TEAM, PERSON)


@pytest.mark.parametrize(
    ("kind", "id", "named"),
    [
        ("team", TEAM, (TEAM, None)),
        ("user", PERSON, (None, PERSON)),
        ("key", OTHER, (None, None)),
        ("subscription", OTHER, (None, None)),
        ("organisation", "default", (None, None)),
    ],
)
def test_other_scopes_name_what_they_are(kind: ScopeKind, id: str, named: tuple[str | None, str | None]) -> None:
    assert team_and_person(kind, id) == named
