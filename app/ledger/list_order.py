"""Columns of the key, credential and budget lists, updated while usage is posted, so that no list adds up the ledger.

The last use of a key or a credential is accurate to a minute. A budget's spent amount is the ledger's sum for the counter
charged last. The columns only sort and filter lists; the rows show figures of the ledger and the meter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Connection, TableClause, Text, column, select, table, update

from app.ledger.budgets import SPENT
from app.ledger.measures import rows_from_json
from app.metering.usage import UsageEvent

# Only the columns: the nouns' modules are above the ledger.
KEY = table("api_key", column("id"), column("last_used_ms"))
CREDENTIAL = table("personal_credential", column("id"), column("last_used_ms"))
BUDGET = table("budget", *map(column, ("id", "scope_kind", "scope_id", "spent_nano", "spent_period", "spent_at_ms")))
COARSE_MS = 60_000  # so that a busy key is not updated by every call


def advance(connection: Connection, events: Sequence[UsageEvent]) -> None:
    """Update the columns for new entries, inside the caller's transaction and after `budgets.advance`."""
    _used(connection, KEY, {event.key_id: event.at_ms for event in _oldest_first(events) if event.key_id})
    _used(
        connection,
        CREDENTIAL,
        {
            attempt.credential_id: event.at_ms
            for event in _oldest_first(events)
            for attempt in event.attempts
            if attempt.credential_id
        },
    )
    _spent(connection, {counter for event in events for counter in event.scopes})


def _oldest_first(events: Iterable[UsageEvent]) -> list[UsageEvent]:
    """The usage among `events`, so that the last one of a key is its latest."""
    return sorted((event for event in events if event.kind == "usage"), key=lambda event: event.at_ms)


def _used(connection: Connection, rows: TableClause, latest: dict[str, int]) -> None:
    if not latest:
        return
    used = rows_from_json(connection, id=Text(), at_ms=BigInteger()).cte("used")
    due = (  # one order of locks for every poster
        select(rows.c.id, used.c.at_ms)
        .join(used, used.c.id == rows.c.id)
        .where(rows.c.last_used_ms < used.c.at_ms - COARSE_MS)
        .order_by(rows.c.id)
        .with_for_update(of=rows, key_share=True)
        .cte("due")
    )
    act = update(rows).where(rows.c.id == due.c.id).values(last_used_ms=due.c.at_ms)
    connection.execute(act, {"data": msgspec.json.encode(sorted(latest.items())).decode()})


def _spent(connection: Connection, counters: Iterable[tuple[str, str, str]]) -> None:
    charged = sorted(counters)
    if not charged:
        return
    counter = rows_from_json(connection, kind=Text(), id=Text(), period=Text()).cte("counter")
    due = (
        select(BUDGET.c.id, SPENT.c.period, SPENT.c.spent_nano, SPENT.c.last_at_ms)
        .select_from(counter)
        .join(BUDGET, (BUDGET.c.scope_kind == counter.c.kind) & (BUDGET.c.scope_id == counter.c.id))
        .join(
            SPENT,
            (SPENT.c.kind == counter.c.kind) & (SPENT.c.id == counter.c.id) & (SPENT.c.period == counter.c.period),
        )
        .where(SPENT.c.last_at_ms >= BUDGET.c.spent_at_ms)  # a late entry for a past period changes nothing
        .order_by(BUDGET.c.id)
        .with_for_update(of=BUDGET, key_share=True)
        .cte("due")
    )
    kept: dict[str, Any] = {
        "spent_nano": due.c.spent_nano, "spent_period": due.c.period, "spent_at_ms": due.c.last_at_ms,
    }  # fmt: skip
    connection.execute(
        update(BUDGET).where(BUDGET.c.id == due.c.id).values(kept),
        {"data": msgspec.json.encode(charged).decode()},
    )
