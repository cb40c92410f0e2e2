"""Dead letters on each database: what it takes now is booked, what it refuses again stays open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from app.domain.audit import AuditEntry
from app.domain.audit_chain import AuditHead
from app.domain.errors import Conflict, Invalid
from app.domain.person import Person
from app.extensions import Base, db, transaction
from app.ledger import posting
from app.ledger.entries import DeadLetter
from app.workflows import dead_letters
from tests.ledger.books import assert_sums_equal_entries, count_entries, encode, event

ADMIN = Person(id="1", username="admin", role="admin")


@pytest.fixture(autouse=True)
def audit(ledger: Flask) -> Iterator[None]:
    tables = (AuditEntry, AuditHead)
    Base.metadata.create_all(db.engine, tables=[one.__table__ for one in tables])  # type: ignore[misc]
    for one in tables:
        db.session.query(one).delete()  # another file may have left some
    db.session.commit()
    yield
    db.session.remove()
    Base.metadata.drop_all(db.engine, tables=[one.__table__ for one in tables])  # type: ignore[misc]


def buried(raw: bytes) -> DeadLetter:
    posting.bury("stream 1-0", raw, "refused")
    db.session.rollback()
    return db.session.scalars(dead_letters.search(search="REFUSED", state="open")).one()


def test_an_event_is_booked_with_its_sums_and_only_once(ledger: Flask) -> None:
    told = event()
    letter = buried(encode(told))
    assert transaction(dead_letters.post, letter, told, by=ADMIN) is True
    assert_sums_equal_entries()
    with pytest.raises(Conflict, match="admin has already posted"):
        transaction(dead_letters.post, letter, told, by=ADMIN)
    assert (count_entries(), dead_letters.open_count(), db.session.query(AuditEntry).count()) == (1, 0, 1)


def test_what_the_database_refuses_again_stays_open(ledger: Flask) -> None:
    told = event(cost_nano=2**63 - 1)
    posting.post([told])
    another = event(cost_nano=2**63 - 1, prompt_tokens=2**70)  # beyond what any column takes
    letter = buried(b"{}")
    with pytest.raises(Invalid, match="refused this event again"):
        transaction(dead_letters.post, letter, another, by=ADMIN)
    db.session.rollback()
    assert (dead_letters.open_count(), count_entries(), db.session.query(AuditEntry).count()) == (1, 1, 0)


def test_a_very_long_name_is_no_trouble(ledger: Flask) -> None:
    told = event(request_id="x" * 5000)
    assert transaction(dead_letters.post, buried(encode(told)), told, by=ADMIN) is True
    assert db.session.query(AuditEntry).one().object_name == "x" * 255
