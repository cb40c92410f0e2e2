"""Dimensions and measures: every event adds the same wherever it is summed, and a group has one name."""

from __future__ import annotations

from flask import Flask
from sqlalchemy import func, select

from app.extensions import db
from app.ledger import measures, posting
from app.ledger.rollups import HOURLY
from tests.ledger.books import event


def test_a_group_has_one_name_everywhere(ledger: Flask) -> None:
    assert measures.group_key(measures.group_of(event(key_id=None))) == measures.group_key(
        ("ada", "", "", "", "echo", "provider-1", "/v1/chat/completions", "chat", False)
    )
    posting.post([event(key_id=None), event(key_id=None)])
    assert db.session.scalar(select(func.count()).select_from(HOURLY)) == 1
