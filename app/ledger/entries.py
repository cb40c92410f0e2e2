"""The ledger's tables: append-only entries, and dead letters.

They have a module of their own, so that both posting and rollups can import them.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import from_ms
from app.extensions import Base
from app.metering import quantities

# The ledger takes any text: a name that is too long must not lose an entry.
Unbounded = Annotated[str, mapped_column(Text())]

# SQLite numbers rows only in an INTEGER PRIMARY KEY.
RowId = BigInteger().with_variant(Integer(), "sqlite")

# Spelled as in the indexes, so that a query can use them.
FAILED, REFUSED = text("outcome = 'error'"), text("outcome = 'refused'")
# Columns that the indexes of entries include, so that sums and times of many entries need no step to each.
INCLUDED = ("kind", "outcome", "stream", "prompt_tokens", "completion_tokens", "cost_nano", "duration_ms", "ttft_ms")


class Measured:
    """A column for each quantity."""

    if TYPE_CHECKING:
        prompt_tokens: Mapped[int]
        completion_tokens: Mapped[int]


for _name in quantities.NAMES:
    setattr(Measured, _name, mapped_column(BigInteger, nullable=False, server_default="0"))


class UsageEntry(Measured, Base):
    """One line of the ledger: everything known about one call (`app.metering.usage.UsageEvent`). Append-only."""

    __tablename__ = "usage_entry"
    __table_args__ = (
        UniqueConstraint("request_id", "attempt", "kind"),
        Index(None, "at_ms", "id"),
        *(
            Index(None, name, "at_ms", "id", postgresql_include=[*more, *INCLUDED])
            for name, more in {"person_id": ["model"], "key_id": ["person_id"], "team_id": [], "model": []}.items()
        ),
        Index(None, "provider_id", "at_ms", "id"),  # without it a rarely used provider would need a scan of all entries
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
        *(
            Index(f"ix_usage_entry_{name}", name, "at_ms", "id", sqlite_where=given, postgresql_where=given)
            for name, given in ((name, text(f"{name} IS NOT NULL")) for name in ("session_id", "turn_id"))
        ),
        Index("ix_usage_entry_errors", "at_ms", "id", sqlite_where=FAILED, postgresql_where=FAILED),
        *(
            Index(f"ix_usage_entry_refused_{name}", name, "at_ms", "id", sqlite_where=REFUSED, postgresql_where=REFUSED)
            for name in ("person_id", "key_id", "team_id", "model")
        ),
        Index("ix_usage_entry_refused", "at_ms", "id", sqlite_where=REFUSED, postgresql_where=REFUSED),
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
    service_tier: Mapped[Unbounded | None]
    cost_nano: Mapped[int]
    hold_nano: Mapped[int]
    overdraft_nano: Mapped[int]
    moved_nano: Mapped[int] = mapped_column(
        server_default="0"
    )  # the amount by which a repair or credit moved its counter
    price_id: Mapped[Unbounded | None]
    duration_ms: Mapped[int]
    ttft_ms: Mapped[int | None]
    session_id: Mapped[Unbounded | None]  # this and the next four are the client's own words
    agent: Mapped[Unbounded | None]
    subagent_id: Mapped[Unbounded | None]
    turn_id: Mapped[Unbounded | None]
    tags: Mapped[list[Any]] = mapped_column(JSON, server_default="[]")  # found and summed by `usage_tag`
    unpriced: Mapped[dict[str, Any]] = mapped_column(
        JSON, server_default="{}"
    )  # counts of what the price lacks, by name
    attempts: Mapped[list[Any]] = mapped_column(JSON)  # tries: deployment_id, provider_id, duration_ms, error
    scopes: Mapped[list[Any]] = mapped_column(JSON)  # counters charged: [scope kind, scope id, period name]
    refused: Mapped[int] = mapped_column(server_default="0")  # how many calls a refusal stands for; 0 for all else
    refusal: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # `app.metering.usage.Refusal`

    @property
    def at(self) -> datetime:
        """When the call was admitted."""
        return from_ms(self.at_ms)


class UsageTag(Base):
    """A tag of an entry, so that tags can be found and summed."""

    __tablename__ = "usage_tag"
    __table_args__ = (PrimaryKeyConstraint("tag", "entry_id"),)

    tag: Mapped[str] = mapped_column(String(64))
    entry_id: Mapped[int] = mapped_column(index=True)


class DeadLetter(Base):
    """An event that could not be read or posted, kept as it arrived until an admin decides. It never blocks other events.

    It is never deleted: `app.workflows.dead_letters` posts or dismisses it, and `state` records which.
    """

    __tablename__ = "dead_letter"
    __table_args__ = (Index(None, "at_ms"), Index(None, "state", "at_ms"))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    digest: Mapped[str] = mapped_column(
        String(64), unique=True
    )  # of the raw text, so that a repeated delivery is kept once
    source: Mapped[Unbounded]  # "stream <entry id>" or "spool <file name>"
    raw: Mapped[Unbounded]  # bytes that are not text are written \xNN
    reason: Mapped[Unbounded]
    at_ms: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default="open", server_default="open")  # open, posted, dismissed
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None] = mapped_column(String(64))
    note: Mapped[Unbounded | None]

    @property
    def at(self) -> datetime:
        """When it was stored."""
        return from_ms(self.at_ms)


ENTRY = cast("Table", UsageEntry.__table__)
TAGGED = cast("Table", UsageTag.__table__)
DEAD = cast("Table", DeadLetter.__table__)
