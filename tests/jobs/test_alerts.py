"""Alerts: each counter that was charged is looked at, and a refused budget once the books are as far as it was."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy.exc import OperationalError

from app.jobs.alerts import Alerts
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.stream import Stream
from tests.jobs.usage import drain_all, send
from tests.ledger.books import some_events


@pytest.mark.both_databases
def test_the_counters_that_were_charged_are_looked_at_for_alerts_and_none_is_lost(
    ledger: Flask, wire: redis.Redis, stream: Stream, bookkeeper: Bookkeeper
) -> None:
    looked: list[set[Any]] = []
    away = True

    def look(charged: Any, refused: Any) -> None:
        if away:
            raise OperationalError("SELECT", None, Exception("away"))
        looked.append(set(charged))

    alerts = Alerts(stream, bookkeeper, look)
    events = some_events(300)
    send(wire, events)
    drain_all(stream)
    with pytest.raises(OperationalError):
        alerts.look()
    away = False
    send(wire, events)  # delivered again
    drain_all(stream)
    alerts.look()
    alerts.look()
    assert looked == [{scope for told in events for scope in told.scopes}, set()]


@pytest.mark.both_databases
def test_a_budget_that_refused_is_judged_once_the_books_know_what_was_spent_before(
    ledger: Flask, wire: redis.Redis, stream: Stream, bookkeeper: Bookkeeper
) -> None:
    noted: list[tuple[str, str]] = [("user", "ada")]
    judged: list[set[tuple[str, str]]] = []
    away = True

    def take() -> list[tuple[str, str]]:
        taken = noted.copy()
        noted.clear()
        return taken

    def judge(charged: Any, refused: Any) -> None:
        judged.append(set(refused))
        if refused and away:
            raise OperationalError("SELECT", None, Exception("away"))

    alerts = Alerts(stream, bookkeeper, judge, take)
    send(wire, some_events(5))
    alerts.look()
    drain_all(stream)
    send(wire, some_events(5, seed=1))  # what came after the refusal is not waited for
    with pytest.raises(OperationalError):
        alerts.look()
    away = False
    alerts.look()
    alerts.look()
    assert judged == [set(), {("user", "ada")}, {("user", "ada")}, set()]
