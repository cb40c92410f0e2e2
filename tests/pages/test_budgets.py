"""Budgets in a list: how each stands in a word, which share is used, and what of its history a reader is shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import budgets, payers
from app.domain.budgets import Standing
from app.domain.payers import Payer
from app.extensions import transaction
from app.pages import budgets as listed
from app.pages.budgets import Row
from app.workflows import budget_requests
from tests.house import People

PAYER = Payer("user", "1", "ada", "ada")


def standing(limit: int | None = 1000, spent: int | None = 0, held: int | None = 0, **more: Any) -> Standing:
    base: dict[str, Any] = {
        "kind": "user", "id": "1", "limit_nano": limit, "whole_nano": limit, "rules": None, "period": "month",
        "timezone": "UTC", "counted_nano": spent, "reserved_nano": held, "resets_at": None,
    }  # fmt: skip
    return Standing(**{**base, **more})


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (standing(limit=None), "none"),
        (standing(spent=None, held=None), "unknown"),
        (standing(spent=799), "ok"),
        (standing(spent=800), "near"),
        (standing(spent=700, held=100), "near"),
        (standing(spent=990), "near"),
        (standing(spent=991), "exhausted"),  # the smallest call does not fit
        (standing(spent=500, held=491), "exhausted"),
        (standing(spent=5000), "exhausted"),
        (standing(spent=-100), "ok"),  # after a credit
        (standing(limit=0), "exhausted"),
    ],
)
def test_a_budget_stands_in_a_word(found: Standing, state: str) -> None:
    assert listed._state(found, 10) == state
    assert state in listed.STATES or state in ("none", "unknown")


@given(st.integers(1, 10**15), st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_share_is_what_is_spent_and_held_of_what_is_enforced(limit: int, spent: int, held: int) -> None:
    row = Row(PAYER, standing(limit, spent, held), "ok")
    assert row.share == pytest.approx((spent + held) / limit)
    assert row._replace(standing=standing(limit, spent, None)).share == pytest.approx(spent / limit)


def test_what_has_no_share_sorts_below_all_and_a_limit_of_nothing_above() -> None:
    for found in (standing(limit=None), standing(spent=None)):
        assert Row(PAYER, found, "none").share == -1.0
    assert Row(PAYER, standing(limit=0), "exhausted").share == float("inf")


def test_a_row_of_a_file_has_exact_amounts_and_no_zero_for_what_is_not_known() -> None:
    row = listed.exported(Row(PAYER, standing(limit=1_500_000_001, spent=1), "ok"))
    assert (row["limit"], row["spent"], row["remaining"]) == ("1.500000001", "0.000000001", "1.5")
    unknown = listed.exported(Row(PAYER, standing(limit=None, spent=None, held=None), "none"))
    assert {unknown[name] for name in ("limit", "enforced_limit", "spent", "reserved", "remaining")} == {None}
    assert list(listed.EXPORTED) == list(row)
    assert {name: show(Row(PAYER, standing(), "ok")) for name, show in listed.EXPORTED.items()} == listed.exported(
        Row(PAYER, standing(), "ok")
    )


def test_what_others_asked_is_left_out_for_who_may_not_see_it(people: People) -> None:
    transaction(budgets.set_budget, "organisation", "default", by=people.admin, limit="5")
    payer = payers.named("organisation", "default")
    transaction(budget_requests.ask, payer, by=people.owner, amount="1", lasting=True, reason="A secret plan.")
    transaction(budgets.clear, "organisation", "default", by=people.admin)
    assert [one.action for one in listed.history(payer, whole=True)] == ["budget.clear", "budget.request", "budget.set"]
    assert [one.action for one in listed.history(payer, whole=False)] == ["budget.clear", "budget.set"]
    assert len(listed.history(payer, whole=True, limit=1)) == 1


def test_rows_keep_their_order_and_none_are_none(people: People) -> None:
    assert listed.rows([]) == []
    transaction(budgets.set_budget, "user", people.stranger.id, by=people.admin, limit="5")
    both = [payers.named("user", "stranger"), payers.named("user", "owner")]
    assert [(row.payer.name, row.state) for row in listed.rows(both)] == [("stranger", "ok"), ("owner", "none")]
