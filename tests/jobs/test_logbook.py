"""The drainer takes log lines out of Redis into the database, each once, whatever they are."""

from __future__ import annotations

import json

import redis
from flask import Flask

from app import queue as queue_module
from app import store
from app.domain.log_entries import LogEntry
from app.extensions import db
from app.jobs import logbook
from app.jobs.logbook import Logbook


def test_lines_are_written_once_and_leave_redis(inside: Flask, valkey_url: str, wire: redis.Redis, monkeypatch) -> None:
    monkeypatch.setattr(logbook, "AT_ONCE", 2)
    for number in range(5):
        line = {"at": "2026-11-21T12:00:00Z", "level": "warning", "event": f"e{number}", "component": "gateway"}
        wire.xadd(store.LOGS, {"line": json.dumps(line)})
    for odd in ({"line": "no JSON"}, {"other": "x"}, {"line": "[]"}):
        wire.xadd(store.LOGS, odd)
    book = Logbook(queue_module.connect(valkey_url), lambda: 36_500)
    book.write()
    book.write()
    assert wire.xlen(store.LOGS) == 0
    found = [entry.message for entry in db.session.query(LogEntry).order_by(LogEntry.id)]
    assert found[:5] == [f"e{number}" for number in range(5)]
    assert found[5:] == ["a log line could not be read"] * 3


def test_old_lines_are_deleted(inside: Flask, valkey_url: str, wire: redis.Redis) -> None:
    wire.xadd(store.LOGS, {"line": json.dumps({"at": "2020-01-01T00:00:00Z", "event": "old"})})
    Logbook(queue_module.connect(valkey_url), lambda: 30).write()
    assert db.session.query(LogEntry).count() == 0
