"""Percentiles and kinds of errors, from single requests: exact, bounded, and of the reader's own alone."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.event import listen as listens

from app import clock
from app.extensions import db, init_database
from app.ledger import posting, rollups
from app.ledger.measures import DAY_MS
from app.reports import latency, refused_requests, requests
from app.reports.planner import NONE, Filters, Reader
from app.runtime.ids import new_id
from app.setup import migrate
from tests.ledger import books
from tests.ledger.books import ADA, ADMIN, BOB, NOON, event, refused_event


def told(reader: Reader, filters: Filters = NONE) -> latency.Report:
    return latency.report(reader, filters, NONE)


def test_percentiles_are_exact(ledger: Flask) -> None:
    durations = random.Random(1).sample(range(1, 100_000), 137)
    posting.post([event(duration_ms=one, ttft_ms=one // 2 if one % 2 else None, stream=True) for one in durations])
    posting.post([event(outcome="error", status=502, duration_ms=10**6), event(kind="credit", duration_ms=10**6)])
    found = told(ADMIN).sample.all
    ordered = sorted(durations)
    first = sorted(one // 2 for one in durations if one % 2)
    assert found.count == 137
    assert found.duration_p50 == ordered[math.ceil(137 * 0.5) - 1]
    assert found.duration_p95 == ordered[math.ceil(137 * 0.95) - 1]
    assert found.ttft_p50 == first[math.ceil(len(first) * 0.5) - 1]
    assert found.ttft_p95 == first[math.ceil(len(first) * 0.95) - 1]


def test_streams_have_a_rate_and_others_none(ledger: Flask) -> None:
    posting.post([event(stream=True, ttft_ms=100, duration_ms=1100, completion_tokens=50), event(duration_ms=9)])
    found = told(ADA).sample
    assert found.streams.tokens_per_s == 50
    assert (found.others.count, found.others.duration_p50, found.others.tokens_per_s) == (1, 9, None)
    assert told(BOB).sample.all == latency.Timings()


def test_only_streams_have_a_time_to_first_token(ledger: Flask) -> None:
    posting.post([event(stream=True, ttft_ms=100), event(stream=False, ttft_ms=9_000)])
    sample = told(ADA).sample
    assert (sample.all.ttft_p50, sample.all.ttft_p95, sample.others.ttft_p50) == (100, 100, None)


def test_refused_calls_are_told_apart_from_errors_each_entry_by_its_calls(ledger: Flask) -> None:
    posting.post([refused_event(), refused_event(refused=9), refused_event(status=404, error_code="model_not_found")])
    posting.post([refused_event(person_id="", status=401, error_code="invalid_api_key", refused=50), event()])
    found = told(ADA)
    assert (found.refused.kinds, found.refused.counted) == (
        [("insufficient_quota", 429, 10, NOON), ("model_not_found", 404, 1, NOON)], 11,
    )  # fmt: skip
    assert found.errors.kinds == [] and found.sample.all.count == 1
    assert told(ADMIN).refused.kinds[0] == ("invalid_api_key", 401, 50, NOON)


def test_only_the_newest_are_looked_at_and_it_is_said(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "NEWEST", 3)
    posting.post([event(at_ms=NOON - index, duration_ms=index) for index in range(3)])
    assert not told(ADMIN).sample.cut
    db.session.rollback()  # SQLite reads one moment until the transaction ends
    posting.post([event(at_ms=NOON - 10, duration_ms=10**6)])
    found = told(ADMIN).sample
    assert found.cut
    assert (found.all.count, found.all.duration_p95) == (3, 2)
    db.session.rollback()
    posting.post([event(outcome="error", status=500 + index) for index in range(4)])
    assert told(ADMIN).errors.cut


def test_two_spans_are_timed_at_once(ledger: Flask) -> None:
    posting.post([event(duration_ms=5), event(at_ms=NOON - 9 * DAY_MS, duration_ms=7)])
    now, before, *_ = latency.report(ADA, Filters(from_ms=NOON), Filters(to_ms=NOON))
    assert (now.all.duration_p50, before.all.duration_p50) == (5, 7)


def test_errors_are_told_by_code_and_status(ledger: Flask) -> None:
    failed = {"outcome": "error", "status": 502, "error_code": "upstream_error"}
    posting.post([event(**failed, at_ms=NOON - index) for index in range(3)])
    posting.post([event(outcome="error", status=504, error_code="upstream_timeout"), event()])
    posting.post([event(outcome="error", status=504, error_code="upstream_timeout", person_id="bob")])
    assert told(ADA).errors == (
        [("upstream_error", 502, 3, NOON), ("upstream_timeout", 504, 1, NOON)], 4, False,
    )  # fmt: skip
    assert told(ADMIN).errors.kinds[1].requests == 2
    assert told(ADMIN, Filters(model="other")).errors == ([], 0, False)
    assert told(ADMIN, Filters(to_ms=NOON)).errors.counted == 2


@pytest.fixture
def migrated(tmp_path: Path) -> Iterator[None]:
    """Books as the migrations make them: of indexes that fit alike, SQLite takes the newest."""
    app = Flask("books")
    app.config["PORTICO"] = settings = books.settings(tmp_path)
    init_database(app, settings)
    with app.app_context():
        migrate()
        yield
        db.session.remove()
        db.engine.dispose()


def test_each_question_walks_an_index_of_its_own(migrated: None) -> None:
    """The planner of SQLite has no statistics: a wrong index would read all that a person or everyone ever did.
    PostgreSQL decides by its statistics."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    def listen(
        connection: object, cursor: object, statement: str, parameters: tuple[object, ...], *rest: object
    ) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    listens(db.engine, "before_cursor_execute", listen)
    span = {"from_ms": 1000, "to_ms": 2000}
    questions: list[tuple[str, Callable[[], object]]] = [
        ("ix_usage_hourly_underived", lambda: rollups.derived_before(db.session.connection())),
        ("ix_usage_entry_errors", lambda: told(ADMIN, Filters(**span))),
        ("ix_usage_entry_errors_person_id", lambda: told(ADA, Filters(**span))),
        ("ix_usage_entry_errors_person_id", lambda: requests.search(ADA, filters=Filters(status="error"))),
        ("ix_usage_entry_refused", lambda: told(ADMIN, Filters(**span))),
        ("ix_usage_entry_refused_person_id", lambda: requests.search(ADA, filters=Filters(status="refused"))),
        ("ix_usage_entry_refused_key_id", lambda: told(ADA, Filters(key_id="key-1", **span))),
        ("ix_usage_entry_refused", lambda: refused_requests.counted_about(ADMIN, new_id())),
        ("ix_usage_entry_at_ms_id", lambda: told(ADMIN, Filters(**span))),
        ("ix_usage_entry_person_id_at_ms_id", lambda: told(ADA, Filters(**span))),
        ("ix_usage_entry_key_id_at_ms_id", lambda: told(ADA, Filters(key_id="key-1", **span))),
        ("ix_usage_entry_provider_id_at_ms_id", lambda: told(ADMIN, Filters(provider_id="none", **span))),
        ("ix_usage_entry_key_id_at_ms_id", lambda: requests.search(ADA, filters=Filters(key_id="key-1"))),
        ("ix_usage_entry_key_id_at_ms_id", lambda: requests.last_use(ADA, ["key-1"])),
        ("ix_usage_entry_key_id_at_ms_id", lambda: requests.use_of_secrets(ADA, "key-1", {"one"})),
    ]
    for index, question in questions:
        asked.clear()
        question()
        assert asked
        for statement, parameters in list(asked):
            plan = db.session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            assert f"INDEX {index}" in str(plan), (statement, plan)


def test_the_times_of_a_model_are_told_in_total_and_by_provider(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    posting.post(
        [
            event(provider_id="a", duration_ms=100, person_id="bob"),
            event(provider_id="a", duration_ms=300, stream=True, ttft_ms=50),
            event(provider_id="b", deployment_id="b2", duration_ms=900),
            event(provider_id="b", duration_ms=1, outcome="error", status=502),
            event(provider_id="b", duration_ms=1, model="other"),
            event(provider_id="b", duration_ms=1, at_ms=NOON - DAY_MS - 1),
        ]
    )
    found = latency.of_model("echo", NOON - DAY_MS, NOON + 1)
    assert (found.all.all.count, found.all.all.duration_p50, found.all.streams.ttft_p50) == (3, 300, 50)
    assert {id: one.all.duration_p95 for id, one in found.providers.items()} == {"a": 300, "b": 900}
    assert (found.since, found.deployments["b2"].all.duration_p50) == (None, 900)
    monkeypatch.setattr(latency, "NEWEST", 2)
    db.session.rollback()
    posting.post([event(provider_id="c", at_ms=NOON - 1000, duration_ms=7)])
    cut = latency.of_model("echo", NOON - DAY_MS, NOON + 1)
    assert (cut.all.all.count, cut.since, "c" in cut.providers) == (2, clock.from_ms(NOON), False)
    assert latency.of_model("nobody", 0, NOON).all.all == latency.Timings()
