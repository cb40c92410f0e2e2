"""Pending changes: noted in the transaction that makes them, once each, and gone with it."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import delete, select

from app.domain.changes import PENDING, PendingChange, mark_for_publication
from app.extensions import db, transaction


def written(*notes: tuple[str, str]) -> list[tuple[str, str]]:
    """What notes of one transaction are rows of, before anything acts on them."""

    def work() -> list[tuple[str, str]]:
        db.session.execute(delete(PendingChange))
        for kind, id in notes:
            mark_for_publication(kind, id)  # type: ignore[arg-type]
        rows = db.session.execute(select(PendingChange.kind, PendingChange.object_id).order_by(PendingChange.id))
        found = [(kind, id) for kind, id in rows]
        db.session.rollback()
        return found

    return transaction(work)


def test_what_is_touched_again_is_noted_once(inside: Flask) -> None:
    assert written(("key", "1"), ("directory", ""), ("key", "1"), ("key", "2")) == [
        ("key", "1"), ("directory", ""), ("key", "2"),
    ]  # fmt: skip


def test_what_is_rolled_back_is_noted_anew(inside: Flask) -> None:
    assert written(("key", "1")) == [("key", "1")]
    assert written(("key", "1")) == [("key", "1")], "the note of the transaction before counts no more"


def test_a_unit_that_fails_leaves_no_note(inside: Flask) -> None:
    def work() -> None:
        mark_for_publication("scope", "user:1")
        db.session.flush()
        raise LookupError

    with pytest.raises(LookupError):
        transaction(work)
    assert not db.session.info.get(PENDING)
    assert db.session.scalar(select(PendingChange).where(PendingChange.kind == "scope")) is None
