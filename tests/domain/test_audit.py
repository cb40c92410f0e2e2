"""The audit log: who did what, found by any of its words, with what changed and nothing beside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app.domain import audit
from app.domain.audit import AuditEntry
from app.extensions import db, transaction
from tests.house import People

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FIELDS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


def actions(**filters: Any) -> list[str]:
    return [entry.action for entry in db.session.scalars(audit.entries(**filters)) if entry.object_kind == "thing"]


def test_entries_are_found_by_each_of_their_words_newest_first(people: People, set_clock) -> None:
    for hours, (by, action, id, name) in enumerate(
        ((people.admin, "a", "1", "one"), (people.owner, "b", "2", None), (None, "c", "1", "one"))
    ):
        set_clock(NOON + timedelta(hours=hours))
        transaction(audit.record, by, action, "thing", id, name=name)
    assert actions() == ["c", "b", "a"]
    assert actions(actor="owner") == ["b"]
    assert actions(actor=audit.SYSTEM) == ["c"]
    assert actions(action="a") == ["a"]
    assert [actions(about=word) for word in ("thing", "1", "one", "none")] == [
        ["c", "b", "a"],
        ["c", "a"],
        ["c", "a"],
        [],
    ]
    at = {entry.action: entry.at for entry in db.session.scalars(audit.entries(about="thing"))}
    assert actions(since=at["b"]) == ["c", "b"]
    assert actions(until=at["b"]) == ["a"], "the end is exclusive"
    assert actions(since=at["b"], until=at["c"], actor="owner") == ["b"]


def test_a_trail_is_what_a_person_did_and_what_was_done_to_them(people: People) -> None:
    def work() -> None:
        audit.record(people.owner, "did", "thing", "1")
        audit.record(people.admin, "was done", "person", people.owner.id)
        audit.record(people.admin, "to another", "person", people.stranger.id)
        audit.record(people.admin, "to a thing of that id", "thing", people.owner.id)

    transaction(work)
    found = [entry.action for entry in db.session.scalars(audit.trail(people.owner))]
    assert found[:2] == ["was done", "did"]
    assert not {"to another", "to a thing of that id"} & set(found)


def test_a_history_is_one_things_own(people: People) -> None:
    for number in range(4):
        transaction(audit.record, people.admin, f"a{number}", "thing", "1" if number else "2")
    assert [entry.action for entry in audit.history("thing", "1", limit=2)] == ["a3", "a2"]
    assert [entry.action for entry in audit.history("thing", "1", limit=9, actions=("a0", "a1"))] == ["a1"]


@given(before=FIELDS, after=FIELDS)
def test_an_entry_tells_exactly_what_changed(before: dict[str, int], after: dict[str, int]) -> None:
    entry = _unsaved(before=before, after=after)
    changed = {key for key in after if key not in before or before[key] != after[key]}
    assert set(entry.detail["after"]) == set(entry.detail["before"]) == changed
    assert entry.detail["after"] == {key: after[key] for key in changed}
    assert entry.detail["before"] == {key: before.get(key) for key in changed}


def test_what_was_not_said_is_not_kept() -> None:
    assert _unsaved().detail == {}
    assert _unsaved(reason="r", facts={"count": 3}).detail == {"reason": "r", "count": 3}
    assert _unsaved(after={"a": None}).detail == {"after": {"a": None}}


def test_the_address_is_that_of_the_request(app: Flask, people: People) -> None:
    with app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.7"}):
        assert audit.record(people.owner, "a", "thing", "1").address == "192.0.2.7"
    assert audit.record(people.owner, "a", "thing", "1").address is None
    db.session.rollback()


def _unsaved(**values: Any) -> AuditEntry:
    """What would be written, without a database to write it into."""
    kept: list[AuditEntry] = []
    session, audit.db = audit.db, _Kept(kept)  # type: ignore[assignment]
    try:
        return audit.record(None, "a", "thing", "1", **values)
    finally:
        audit.db = session


class _Kept:
    def __init__(self, kept: list[AuditEntry]) -> None:
        self.session = self
        self.add = kept.append
