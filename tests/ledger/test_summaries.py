"""Cuts: what is asked of everybody reads the few rows of the coarsest one that knows it, and gets the same sums."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from flask import Flask
from sqlalchemy import delete, event, select

from app.extensions import MIGRATIONS, db
from app.ledger import measures, posting, rollups, summaries
from app.ledger.rollups import HOURLY, ROLLUP
from app.ledger.summaries import CUT
from app.reports import usage as usage_reports
from app.reports.planner import EVERYBODY, Filters
from tests.ledger import books
from tests.ledger.books import some_events


@pytest.mark.parametrize(
    ("needed", "cut"),
    [
        ((), "whole"),
        (("stream",), "whole"),
        (("provider_id",), "provider"),
        (("team_id",), "team"),
        (("person_id",), "person"),
        (("person_id", "team_id"), "payer"),
        (("model", "api_type"), "model"),
        (("key_id",), None),
        (("model", "person_id"), None),
    ],
)
def test_the_coarsest_cut_that_knows_all_is_read(needed: tuple[str, ...], cut: str | None) -> None:
    assert summaries.fitting(needed) == cut


def test_sums_over_everybody_read_no_rollups_of_single_groups(ledger: Flask) -> None:
    posting.post(some_events(200))
    rollups.derive()
    told: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        told.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        whole = usage_reports.totals(EVERYBODY)
        shares = [
            usage_reports.by(EVERYBODY, dimension) for dimension in ("model", "person_id", "team_id", "provider_id")
        ]
    finally:
        event.remove(db.engine, "before_cursor_execute", note)
    assert not any("usage_rollup" in statement for statement in told)
    for some in shares:
        assert sum(share.cost_nano for share in some) == whole.cost_nano
        assert sum(share.requests for share in some) == whole.requests == 200


def test_a_person_alone_is_read_where_persons_are(ledger: Flask) -> None:
    posting.post(some_events(100))
    rollups.derive()
    counted = sum(event.person_id == "ada" for event in some_events(100))
    assert usage_reports.totals(EVERYBODY, filters=Filters(person_id="ada")).requests == counted


def test_the_migration_fills_what_posting_and_deriving_would_have_kept(ledger: Flask) -> None:
    posting.post(some_events(300))
    rollups.derive()
    with measures.writing() as connection:
        before = _rows(connection)
        connection.execute(delete(CUT))
        spec = importlib.util.spec_from_file_location("cuts_0006", MIGRATIONS / "versions" / "0006_cuts.py")
        assert spec is not None and spec.loader is not None
        revision = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(revision)
        with Operations.context(MigrationContext.configure(connection)):
            revision._fill(CUT)
        assert _rows(connection) == before
        assert connection.execute(select(HOURLY.c.group_key)).first() is not None
        assert connection.execute(select(ROLLUP.c.group_key)).first() is not None
    books.assert_sums_equal_entries(derived=True)


def _rows(connection: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in connection.execute(select(CUT)))
