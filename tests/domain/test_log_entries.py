"""Log lines in the database: kept once, found by each of their words, and gone after their time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain import log_entries
from app.domain.log_entries import LogEntry
from app.extensions import db, transaction
from tests.house import People

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def keep(*lines: dict[str, Any]) -> None:
    transaction(log_entries.keep, [(f"{number:03}", line) for number, line in enumerate(lines)])


def found(**filters: Any) -> list[str]:
    return [entry.message for entry in db.session.scalars(log_entries.search(**filters))]


def line(event: str, **more: Any) -> dict[str, Any]:
    return {"at": NOON.isoformat(), "event": event, "level": "info", "component": "gateway", **more}


def test_lines_are_found_by_each_of_their_words_newest_first(people: People) -> None:
    keep(
        line("a", level="debug"),
        line("b 100%", component="jobs", process="drainer"),
        line("c", level="warning", request_id="r-1"),
        line("d", level="critical", at=(NOON + timedelta(hours=1)).isoformat()),
    )
    assert found() == ["d", "c", "b 100%", "a"]
    assert found(level="warning") == ["d", "c"]
    assert found(level="error") == ["d"]
    assert found(component="jobs") == found(search="0%") == found(search="DRAINER") == ["b 100%"]
    assert found(search="r-1") == ["c"]
    assert found(since=NOON + timedelta(minutes=1)) == ["d"]
    assert found(until=NOON + timedelta(hours=1)) == ["c", "b 100%", "a"]


def test_a_line_is_kept_once_and_any_line_is_kept(people: People) -> None:
    keep(line("a"))
    keep(line("another"), {}, {"at": 5, "level": "loud", "event": None, "component": [], "request_id": 7})
    assert len(found()) == 3 and "a" in found() and "another" not in found()


def test_old_lines_go_a_few_at_a_time(people: People, set_clock) -> None:
    set_clock(NOON + timedelta(days=30, seconds=1))
    keep(line("a"), line("b"), line("c", at=(NOON + timedelta(days=1)).isoformat()))
    assert [transaction(log_entries.forget, 30, 1) for _ in range(3)] == [1, 1, 0]
    assert found() == ["c"]
    assert db.session.query(LogEntry).count() == 1
