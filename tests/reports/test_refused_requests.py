"""Refused calls that are only counted are found by the moment that an id tells, by those who may see them."""

from __future__ import annotations

import uuid

from flask import Flask

from app.ledger import posting
from app.metering.usage import Refusal, UsageEvent
from app.reports import refused_requests
from tests.ledger.books import ADA, ADMIN, BOB, NOON, Somebody, refused_event

MINUTE = NOON  # a whole one


def id_at(ms: int) -> str:
    return str(uuid.UUID(int=ms << 80 | 0x7 << 76 | 0x2 << 62))


def count(calls: int, **fields: object) -> UsageEvent:
    return refused_event(at_ms=MINUTE, refused=calls, refusal=Refusal(reason="requests", counted=True), **fields)


def found(reader: Somebody, after_ms: int) -> list[int]:
    return [entry.refused for entry in refused_requests.counted_about(reader, id_at(MINUTE + after_ms))]


def test_the_counts_of_an_ids_minute_are_found_most_calls_first(ledger: Flask) -> None:
    posting.post([count(3), count(8, error_code="other"), refused_event(at_ms=MINUTE), count(5, person_id="bob")])
    assert found(ADA, 0) == found(ADA, 59_999) == [8, 3]
    assert found(BOB, 0) == [5]
    assert found(ADMIN, 0) == [8, 5, 3]
    assert found(ADA, -1) == found(ADA, 60_000 + refused_requests.LATE_MS) == []


def test_calls_of_nobody_are_for_who_sees_everything(ledger: Flask) -> None:
    posting.post([count(9, person_id="", key_id=None)])
    assert (found(ADMIN, 0), found(ADA, 0), found(Somebody(""), 0)) == ([9], [], [])


def test_what_is_no_id_of_ours_tells_no_moment(ledger: Flask) -> None:
    posting.post([count(1)])
    for id in ("", "nothing", str(uuid.UUID(int=0)), id_at(MINUTE).upper() + "x"):
        assert refused_requests.counted_about(ADMIN, id) == []
