"""The ledger's own tables: entries, which are only ever added, and what could not become one.

They stand apart from who writes and who sums them, so that both may read them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, cast

from sqlalchemy import JSON, BigInteger, Index, Integer, String, Table, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import Base

# The books take any text: a name that is too long must not cost an entry.
Unbounded = Annotated[str, mapped_column(Text())]

# SQLite numbers rows by itself only in an INTEGER PRIMARY KEY.
RowId = BigInteger().with_variant(Integer(), "sqlite")

FAILED = text("outcome = 'error'")  # in the very words of the indexes, as a query must say them
# What indexes of entries tell beside where these are: sums and times of many are read without a step to each.
TOLD = ("kind", "outcome", "stream", "prompt_tokens", "completion_tokens", "cost_nano", "duration_ms", "ttft_ms")


class UsageEntry(Base):
    """One line of the ledger: all that is known of one call (`app.metering.usage.UsageEvent`). Append-only."""

    __tablename__ = "usage_entry"
    __table_args__ = (
        UniqueConstraint("request_id", "attempt", "kind"),
        Index(None, "at_ms", "id"),
        *(
            Index(None, name, "at_ms", "id", postgresql_include=[*more, *TOLD])
            for name, more in {"person_id": ["model"], "key_id": ["person_id"], "team_id": [], "model": []}.items()
        ),
        Index(None, "provider_id", "at_ms", "id"),  # one that is hardly used would be looked for in all entries
        *(
            Index(f"ix_usage_entry_errors_{name}", name, "at_ms", "id", sqlite_where=FAILED, postgresql_where=FAILED)
            for name in ("person_id", "key_id", "team_id", "model")
        ),
        Index(
            "ix_usage_entry_repairs",
            "at_ms",
            "id",
            sqlite_where=text("kind = 'repair'"),
            postgresql_where=text("kind = 'repair'"),
        ),
        Index("ix_usage_entry_errors", "at_ms", "id", sqlite_where=FAILED, postgresql_where=FAILED),
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

    It is never deleted: `app.workflows.dead_letters` judges it, and `state` says how that went.
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
