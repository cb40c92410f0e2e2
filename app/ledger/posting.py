"""Posting: usage events become entries of the ledger, each exactly once whatever is delivered again.

An entry is never edited; a correction is another entry. The hourly rollups and the budgets' sums advance in the same
transaction and only for entries that are really new, so that they always say what the entries say.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Connection,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import Base, db
from app.ledger import budgets, rollups
from app.ledger.rollups import Unbounded
from app.metering.usage import UsageEvent

Name = tuple[str, int, str]  # request id, attempt, kind: what names an entry for ever

CHUNK = 500  # rows an INSERT; SQLite takes at most 32,766 parameters

# SQLite numbers rows by itself only in an INTEGER PRIMARY KEY.
RowId = BigInteger().with_variant(Integer(), "sqlite")


class UsageEntry(Base):
    """One line of the ledger: all that is known of one call (`app.metering.usage.UsageEvent`). Append-only."""

    __tablename__ = "usage_entry"
    __table_args__ = (
        UniqueConstraint("request_id", "attempt", "kind"),
        Index(None, "at_ms", "id"),
        Index(None, "person_id", "at_ms", "id"),
        Index(None, "key_id", "at_ms", "id"),
        Index(None, "team_id", "at_ms", "id"),
        Index(None, "model", "at_ms", "id"),
        Index(
            "ix_usage_entry_repairs",
            "at_ms",
            "id",
            sqlite_where=text("kind = 'repair'"),
            postgresql_where=text("kind = 'repair'"),
        ),
        Index(
            "ix_usage_entry_errors",
            "at_ms",
            "id",
            sqlite_where=text("outcome = 'error'"),
            postgresql_where=text("outcome = 'error'"),
        ),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    request_id: Mapped[Unbounded]
    attempt: Mapped[int]
    kind: Mapped[Unbounded]
    at_ms: Mapped[int]
    person_id: Mapped[Unbounded]
    key_id: Mapped[Unbounded | None]
    secret_id: Mapped[Unbounded | None]  # which of the key's secrets was presented
    team_id: Mapped[Unbounded | None]
    subscription_id: Mapped[Unbounded | None]
    model: Mapped[Unbounded]
    endpoint: Mapped[Unbounded]
    api_type: Mapped[Unbounded]
    provider_id: Mapped[Unbounded | None]
    deployment_id: Mapped[Unbounded | None]
    outcome: Mapped[Unbounded]
    status: Mapped[int]
    error_code: Mapped[Unbounded | None]
    error_message: Mapped[Unbounded | None]
    finish_reason: Mapped[Unbounded | None]
    stream: Mapped[bool]
    estimated: Mapped[bool]
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    images: Mapped[int]
    audio_ms: Mapped[int]
    cost_nano: Mapped[int]
    hold_nano: Mapped[int]
    overdraft_nano: Mapped[int]
    moved_nano: Mapped[int] = mapped_column(server_default="0")  # what a repair or credit moved its counter by
    price_id: Mapped[Unbounded | None]
    duration_ms: Mapped[int]
    ttft_ms: Mapped[int | None]
    attempts: Mapped[list[Any]] = mapped_column(JSON)  # tries: deployment_id, provider_id, duration_ms, error
    scopes: Mapped[list[Any]] = mapped_column(JSON)  # counters charged: [scope kind, scope id, period name]

    @property
    def at(self) -> datetime:
        """When it was admitted."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


class DeadLetter(Base):
    """An event that could not be read or written, kept as it came for somebody to look at. It never blocks others.

    It is never deleted: `app.ledger.dead_letters` judges it, and `state` says how that went.
    """

    __tablename__ = "dead_letter"
    __table_args__ = (Index(None, "at_ms"), Index(None, "state", "at_ms"))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)  # of the raw text: delivered again, it is kept once
    source: Mapped[Unbounded]  # "stream <entry id>" or "spool <file name>"
    raw: Mapped[Unbounded]  # bytes that are no text are written \xNN
    reason: Mapped[Unbounded]
    at_ms: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default="open", server_default="open")  # open, posted, dismissed
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None] = mapped_column(String(64))
    note: Mapped[Unbounded | None]

    @property
    def at(self) -> datetime:
        """When it was put aside."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


ENTRY = cast("Table", UsageEntry.__table__)
DEAD = cast("Table", DeadLetter.__table__)

_FIELDS = tuple(field for field in UsageEvent.__struct_fields__ if field not in ("attempts", "scopes"))


def name_of(event: UsageEvent) -> Name:
    """What names an event's entry for ever."""
    return event.request_id, event.attempt, event.kind


def post(events: Sequence[UsageEvent]) -> int:
    """Post events in one transaction of its own; returns how many entries were new.

    Raises SQLAlchemy's errors, after which nothing of this batch was posted; the same batch may be given again.
    """
    with rollups.writing() as connection:
        return post_within(connection, events)


def post_within(connection: Connection, events: Sequence[UsageEvent]) -> int:
    """Post events inside the caller's transaction; returns how many entries were new."""
    unique: dict[Name, UsageEvent] = {}
    for event in events:
        unique.setdefault(name_of(event), event)
    names = sorted(unique)  # two posters that meet wait for each other in one order
    fresh: list[UsageEvent] = []
    for start in range(0, len(names), CHUNK):
        rows = [_row(unique[name]) for name in names[start : start + CHUNK]]
        inserted = rollups.put(
            connection,
            ENTRY,
            rows,
            lambda insert: insert.on_conflict_do_nothing(
                index_elements=[ENTRY.c.request_id, ENTRY.c.attempt, ENTRY.c.kind]
            ).returning(ENTRY.c.request_id, ENTRY.c.attempt, ENTRY.c.kind),
        )
        fresh += [unique[row[0], row[1], row[2]] for row in inserted]
    rollups.advance(connection, fresh)
    budgets.advance(connection, fresh)
    return len(fresh)


def _row(event: UsageEvent) -> dict[str, Any]:
    row = {field: getattr(event, field) for field in _FIELDS}
    row["attempts"] = msgspec.to_builtins(event.attempts)
    row["scopes"] = event.scopes
    return row


def known(events: Sequence[UsageEvent]) -> set[tuple[str, str]]:
    """Those (request, kind) of `events` that the ledger has, whatever the attempt."""
    kinds = {event.kind for event in events}
    return {
        (id, kind)
        for kind in kinds
        for id in known_requests((event.request_id for event in events if event.kind == kind), kind)
    }


def known_requests(request_ids: Iterable[str], kind: str = "usage") -> set[str]:
    """Those of `request_ids` that the ledger has an entry of this kind for, whatever the attempt."""
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
    """Keep an event that nobody can read or write as a dead letter, once whatever is delivered again."""
    with rollups.writing() as connection:
        row = {
            "digest": hashlib.sha256(raw).hexdigest(),
            "source": source,
            "raw": raw.decode("utf-8", "backslashreplace").replace("\x00", "\\x00"),
            "reason": reason.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00"),
            "at_ms": time.time_ns() // 1_000_000,
            "state": "open",
        }
        rollups.put(
            connection, DEAD, [row], lambda insert: insert.on_conflict_do_nothing(index_elements=[DEAD.c.digest])
        )
