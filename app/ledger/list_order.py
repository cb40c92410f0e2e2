"""Sort columns of the key and budget lists, updated while usage is posted, so that no list adds up the ledger.

A key's last use is accurate to a minute. A budget's spent amount is the ledger's sum for the counter charged last. The
columns only sort and filter lists; the rows show figures of the ledger and the meter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Connection, Text, column, select, table, update

from app.ledger.budgets import SPENT
from app.ledger.measures import rows_from_json
from app.metering.usage import UsageEvent

# Only the columns: the nouns' modules are above the ledger.
KEY = table("api_key", column("id"), column("last_used_ms"))
BUDGET = table("budget", *map(column, ("id", "scope_kind", "scope_id", "spent_nano", "spent_period", "spent_at_ms")))
COARSE_MS = 60_000  # so that a busy key is not updated by every call


def advance(connection: Connection, events: Sequence[UsageEvent]) -> None:
    """Update the columns for new entries, inside the caller's transaction and after `budgets.advance`."""
    _used(connection, events)
    _spent(connection, {counter for event in events for counter in event.scopes})


def _used(connection: Connection, events: Iterable[UsageEvent]) -> None:
    latest: dict[str, int] = {}
    for event in events:
        if event.key_id and event.kind == "usage":
            latest[event.key_id] = max(event.at_ms, latest.get(event.key_id, 0))
    if not latest:
        return
    used = rows_from_json(connection, id=Text(), at_ms=BigInteger()).cte("used")
    due = (  # one order of locks for every poster
        select(KEY.c.id, used.c.at_ms)
        .join(used, used.c.id == KEY.c.id)
        .where(KEY.c.last_used_ms < used.c.at_ms - COARSE_MS)
        .order_by(KEY.c.id)
        .with_for_update(of=KEY, key_share=True)
        .cte("due")
    )
    act = update(KEY).where(KEY.c.id == due.c.id).values(last_used_ms=due.c.at_ms)
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
