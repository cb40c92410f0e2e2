"""Posting: usage events become ledger entries, exactly once however often they are delivered.

An entry is never edited; a correction is another entry. Hourly rollups, the budgets' sums and sort columns advance in the
same transaction and only for new entries, so that they always match the entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from app import clock
from app.extensions import db
from app.ledger import budgets, list_order, measures, rollups, unpriced
from app.ledger.entries import DEAD, ENTRY, TAGGED
from app.metering.usage import UsageEvent

Name = tuple[str, int, str]  # request id, attempt, kind: the unique name of an entry

CHUNK = 500  # rows per INSERT; SQLite accepts at most 32,766 parameters

_FIELDS = tuple(
    field for field in UsageEvent.__struct_fields__ if field not in ("attempts", "scopes", "unpriced", "refusal")
)


def name_of(event: UsageEvent) -> Name:
    """The unique name of an event's entry."""
    return event.request_id, event.attempt, event.kind


def post(events: Sequence[UsageEvent]) -> int:
    """Post events in a transaction of its own; return how many entries were new.

    Raises SQLAlchemy's errors. Then nothing of the batch was posted, and it can be posted again.
    """
    with measures.writing() as connection:
        return post_within(connection, events)


def post_within(connection: Connection, events: Sequence[UsageEvent]) -> int:
    """Post events inside the caller's transaction; return how many entries were new."""
    unique: dict[Name, UsageEvent] = {}
    for event in events:
        unique.setdefault(name_of(event), event)
    names = sorted(unique)  # one order of locks for every poster
    fresh: list[UsageEvent] = []
    for start in range(0, len(names), CHUNK):
        rows = [_row(unique[name]) for name in names[start : start + CHUNK]]
        inserted = measures.upsert(
            connection,
            ENTRY,
            rows,
            lambda insert: insert.on_conflict_do_nothing(
                index_elements=[ENTRY.c.request_id, ENTRY.c.attempt, ENTRY.c.kind]
            ).returning(ENTRY.c.request_id, ENTRY.c.attempt, ENTRY.c.kind, ENTRY.c.id),
        )
        posted = [(unique[row[0], row[1], row[2]], row[3]) for row in inserted]
        _tag(connection, posted)
        fresh += [event for event, _ in posted]
    rollups.advance(connection, fresh)
    budgets.advance(connection, fresh)
    list_order.advance(connection, fresh)
    unpriced.advance(connection, fresh)
    return len(fresh)


def _tag(connection: Connection, posted: Sequence[tuple[UsageEvent, int]]) -> None:
    """Write the tags of new entries, given with their ids."""
    rows = [{"tag": tag, "entry_id": id} for event, id in posted for tag in dict.fromkeys(event.tags)]
    measures.upsert(connection, TAGGED, rows, lambda insert: insert)


def _row(event: UsageEvent) -> dict[str, Any]:
    row = {field: getattr(event, field) for field in _FIELDS}
    row["attempts"] = msgspec.to_builtins(event.attempts)
    row["scopes"] = event.scopes
    row["unpriced"] = event.unpriced or {}
    row["refusal"] = msgspec.to_builtins(event.refusal)
    return row


def known(events: Sequence[UsageEvent]) -> set[tuple[str, str]]:
    """The (request id, kind) pairs of `events` that the ledger has, for any attempt."""
    kinds = {event.kind for event in events}
    return {
        (id, kind)
        for kind in kinds
        for id in known_requests((event.request_id for event in events if event.kind == kind), kind)
    }


def known_requests(request_ids: Iterable[str], kind: str = "usage") -> set[str]:
    """Those of `request_ids` with an entry of this kind in the ledger, for any attempt."""
    wanted = sorted(set(request_ids))
    found: set[str] = set()
    with db.engine.connect() as connection:
        for start in range(0, len(wanted), CHUNK):
            query = select(ENTRY.c.request_id).where(
                ENTRY.c.request_id.in_(wanted[start : start + CHUNK]), ENTRY.c.kind == kind
            )
            found.update(connection.scalars(query))
    return found


def bury(source: str, raw: bytes, reason: str) -> None:
    """Store an event that cannot be read or posted as a dead letter, once however often it is delivered."""
    with measures.writing() as connection:
        row = {
            "digest": hashlib.sha256(raw).hexdigest(),
            "source": source,
            "raw": raw.decode("utf-8", "backslashreplace").replace("\x00", "\\x00"),
            "reason": reason.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00"),
            "at_ms": clock.now_ms(),
            "state": "open",
        }
        measures.upsert(
            connection, DEAD, [row], lambda insert: insert.on_conflict_do_nothing(index_elements=[DEAD.c.digest])
        )
