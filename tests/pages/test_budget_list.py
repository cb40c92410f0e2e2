"""The admins' list of all budgets: named, narrowed and put in order by the database."""

from __future__ import annotations

from flask import Flask
from sqlalchemy import select

from app.domain import budgets
from app.domain.budgets import Budget
from app.domain.payers import Scope
from app.extensions import db, transaction
from app.pages import budget_list
from tests.domain.test_payers import scopes  # noqa: F401
from tests.house import People


def test_lists_of_budgets_call_them_the_same(app: Flask, people: People, scopes: dict[Scope, str]) -> None:
    for kind, id in scopes:
        transaction(budgets.set_budget, kind, id, by=people.admin, limit="1")
    with app.test_request_context():
        rows = db.session.execute(select(Budget.scope_kind, Budget.scope_id, budget_list.NAME)).all()
    assert {(kind, id): name for kind, id, name in rows} == scopes
