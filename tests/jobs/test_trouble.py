"""Trouble: an error of one part is logged and shown, and stops no other."""

from __future__ import annotations

import pytest
import structlog
from sqlalchemy.exc import OperationalError

from app.jobs.trouble import Trouble, reason_of


def fail() -> None:
    raise OperationalError("SELECT secret", {"a": 1}, Exception("the server is away\nsecond line"))


def test_a_part_that_fails_is_named_until_it_works_again() -> None:
    trouble = Trouble()
    trouble.attempt("spool", fail)
    trouble.attempt("alerts", lambda: 1 / 0)
    assert trouble.summary() == "alerts: ZeroDivisionError; spool: OperationalError"
    trouble.attempt("spool", lambda: None)
    assert trouble.summary() == "alerts: ZeroDivisionError"
    trouble.clear("alerts")
    assert trouble.summary() == ""


def test_the_end_of_a_process_is_no_trouble_of_a_part() -> None:
    def end() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trouble().attempt("spool", end)


def test_each_part_is_logged_once_in_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = [5.0]  # of a machine that has just been started
    monkeypatch.setattr("time.monotonic", lambda: timer[0])
    trouble = Trouble()
    with structlog.testing.capture_logs() as lines:
        for timer[0] in (5.0, 6.0, 15.0):
            trouble.note("spool", OSError("full"), file="1-1.jsonl")
            trouble.attempt("alerts", fail)
        assert [line["part"] for line in lines] == ["spool", "alerts"]
        timer[0] = 15.1
        trouble.note("spool", OSError("full"))
    assert [line["part"] for line in lines] == ["spool", "alerts", "spool"]
    assert lines[0] == {
        "event": "a part of the drainer failed",
        "log_level": "error",
        "part": "spool",
        "error": "full",
        "kind": "OSError",
        "file": "1-1.jsonl",
    }


def test_a_reason_is_one_short_line_without_the_statement() -> None:
    with pytest.raises(OperationalError) as caught:
        fail()
    assert reason_of(caught.value) == "the server is away"
    assert len(reason_of(ValueError("x" * 1000))) == 500
