"""Dimensions and measures: every event adds the same wherever it is summed, and a group has one name."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Text, func, select

from app.extensions import db
from app.ledger import measures, posting
from app.ledger.entries import ENTRY
from app.ledger.rollups import HOURLY
from app.metering.usage import UsageEvent
from app.runtime.ids import new_id
from tests.examples import examples
from tests.ledger.books import event, refused_event


def test_a_group_has_one_name_everywhere(ledger: Flask) -> None:
    assert measures.group_key(measures.group_of(event(key_id=None))) == measures.group_key(
        ("ada", "", "", "", "echo", "provider-1", "/v1/chat/completions", "chat", False)
    )
    posting.post([event(key_id=None), event(key_id=None)])
    assert db.session.scalar(select(func.count()).select_from(HOURLY)) == 1


TEXTS = st.text(st.characters(exclude_characters="\x1f", exclude_categories=("Cs",)), max_size=3)
GROUPS = st.tuples(*(TEXTS for _ in measures.DIMENSIONS[:-1]), st.booleans())


@given(GROUPS, GROUPS)
def test_two_groups_share_no_name(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (measures.group_key(one) == measures.group_key(other)) == (one == other)
    moved = ("", one[0] + one[1], *one[2:]) if one[0] else one  # the same letters at other places
    assert (measures.group_key(moved) == measures.group_key(one)) == (moved == one)


EVENTS = st.builds(refused_event, refused=st.integers(1, 9), person_id=st.sampled_from(["ada", ""])) | st.builds(
    event,
    kind=st.sampled_from(["usage", "late", "repair", "credit"]),
    outcome=st.sampled_from(["ok", "error", "cancelled"]),
    ttft_ms=st.none() | st.integers(0, 9),
    duration_ms=st.integers(0, 99),
    prompt_tokens=st.integers(-5, 5),  # a correction may take some back
    cost_nano=st.integers(-5, 5),
    stream=st.booleans(),
)


@given(EVENTS)
def test_only_a_request_has_an_outcome_and_times(told: UsageEvent) -> None:
    added = dict(zip(measures.MEASURES, measures.measures_of(told), strict=True))
    assert (added["prompt_tokens"], added["cost_nano"]) == (told.prompt_tokens, told.cost_nano)
    counts = told.kind == "usage"
    assert added["requests"] == counts
    assert added["refused"] == told.refused
    assert added["errors"] == (counts and told.outcome == "error")
    assert added["cancelled"] == (counts and told.outcome == "cancelled")
    assert added["duration_ms"] == (told.duration_ms if counts else 0)
    assert (added["ttft_ms"], added["ttft_count"]) == (
        (told.ttft_ms, 1) if counts and told.ttft_ms is not None else (0, 0)
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(50))
@given(st.lists(EVENTS, max_size=8))
def test_sql_measures_an_entry_as_its_event_does(ledger: Flask, told: list[UsageEvent]) -> None:
    with db.engine.begin() as connection:
        connection.execute(ENTRY.delete())
    told = [msgspec.structs.replace(one, request_id=new_id()) for one in told]
    posting.post(told)
    columns = measures.entry_measures(ENTRY)
    query = select(ENTRY.c.request_id, *(columns[name] for name in measures.MEASURES))
    found = {id: tuple(sums) for id, *sums in db.session.execute(query)}
    db.session.rollback()
    assert found == {one.request_id: measures.measures_of(one) for one in told}


def test_any_number_of_rows_is_one_parameter(ledger: Flask) -> None:
    many = [f"id-{number}" for number in range(40_000)] + ['a "quoted" text', "ä"]
    with db.engine.connect() as connection:
        query = measures.values_from_json(connection.dialect.name == "postgresql")
        assert connection.execute(query, {"ids": msgspec.json.encode(many).decode()}).scalars().all() == many
        pairs = measures.rows_from_json(connection, name=Text(), amount=BigInteger())
        told = msgspec.json.encode([["a", 1], ["b", 10**15]]).decode()
        assert [tuple(row) for row in connection.execute(pairs, {"data": told})] == [("a", 1), ("b", 10**15)]


def test_no_rows_are_no_statement(ledger: Flask) -> None:
    with db.engine.connect() as connection:
        assert measures.upsert(connection, ENTRY, [], lambda insert: 1 / 0) == []
