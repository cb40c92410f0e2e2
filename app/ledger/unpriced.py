"""Unpriced usage: what was used for which no price has a member, summed while entries are posted.

It costs nothing in the ledger, so admins see it in a list of its own until a price speaks of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, PrimaryKeyConstraint, Table, case
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import from_ms
from app.extensions import Base
from app.ledger.entries import Unbounded
from app.ledger.measures import upsert
from app.metering.usage import UsageEvent

MOST = 2**40  # of one request that counts: an upstream can say anything


class UnpricedUsage(Base):
    """How much of a quantity a model used under one price that has no member for it ("" for no price), in how many requests,
    and when first and last (Unix ms). `quantity` is one of `quantities.NAMES`, or an upstream's own name for it."""

    __tablename__ = "unpriced_usage"
    __table_args__ = (PrimaryKeyConstraint("model", "quantity", "price_id"),)

    model: Mapped[Unbounded]
    quantity: Mapped[Unbounded]
    price_id: Mapped[Unbounded] = mapped_column(default="")
    requests: Mapped[int]
    amount: Mapped[int]
    first_ms: Mapped[int]
    last_ms: Mapped[int]

    @property
    def first(self) -> datetime:
        return from_ms(self.first_ms)

    @property
    def last(self) -> datetime:
        return from_ms(self.last_ms)


UNPRICED = cast("Table", UnpricedUsage.__table__)


def advance(connection: Connection, events: Iterable[UsageEvent]) -> None:
    """Add events inside the caller's transaction. Pass only events whose entries are new."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for event in events:
        for quantity, count in (event.unpriced or {}).items():
            name = event.model, quantity, event.price_id or ""
            held = sums.setdefault(name, [0, 0, event.at_ms, event.at_ms])
            held[0] += event.kind == "usage"
            held[1] += min(max(count, 0), MOST)
            held[2:] = min(held[2], event.at_ms), max(held[3], event.at_ms)
    rows = [
        dict(
            zip(
                ("model", "quantity", "price_id", "requests", "amount", "first_ms", "last_ms"),
                (*name, *held),
                strict=True,
            )
        )
        for name, held in sorted(sums.items())  # one order of locks for every poster
    ]

    def add(insert: Any) -> Any:
        now, new = UNPRICED.c, insert.excluded
        return insert.on_conflict_do_update(
            index_elements=[now.model, now.quantity, now.price_id],
            set_={
                "requests": now.requests + new.requests,
                "amount": now.amount + new.amount,
                "first_ms": case((new.first_ms < now.first_ms, new.first_ms), else_=now.first_ms),
                "last_ms": case((new.last_ms > now.last_ms, new.last_ms), else_=now.last_ms),
            },
        )

    upsert(connection, UNPRICED, rows, add)
