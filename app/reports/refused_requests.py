"""Refused calls that were too many to be kept one by one: found by the moment that a request's id tells.

The ledger has their counts by minute, with what the first of them was told (`app.gateway.refused_calls`).
"""

from __future__ import annotations

from sqlalchemy import select

from app.extensions import db
from app.ledger.entries import ENTRY, REFUSED, UsageEntry
from app.reports.planner import Reader, access_conditions
from app.runtime.ids import moment_of

MINUTE_MS = 60_000
LATE_MS = 2_000  # a count is closed within a second or two of its minute
MOST = 50


def counted_about(reader: Reader, request_id: str) -> list[UsageEntry]:
    """The counts among which the call with this id can be, as far as the reader may see them: most calls first."""
    at_ms = moment_of(request_id)
    if at_ms is None:
        return []
    query = select(UsageEntry).where(
        REFUSED, ENTRY.c.at_ms > at_ms - MINUTE_MS - LATE_MS, ENTRY.c.at_ms <= at_ms, *access_conditions(reader, ENTRY)
    )
    counts = [entry for entry in db.session.scalars(query) if entry.refusal and entry.refusal.get("counted")]
    return sorted(counts, key=lambda entry: (-entry.refused, entry.id))[:MOST]
