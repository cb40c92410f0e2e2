"""Pending changes: what must be published to Redis after commit, recorded in the same transaction, so that none is lost.

Domain verbs record them with `mark_for_publication`; `app.workflows.publication` publishes them after the commit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.extensions import Base, db
from app.runtime.ids import new_id

# directory: the whole document. person: a person's limits and every key and token of theirs. team: a team's limits
# and every key of it. key: a key's limits
# and secrets. caller: what stands behind one digest. scope: the limits of one scope, named "<kind>:<id>". prompt: all
# versions of a prompt.
Kind = Literal["directory", "person", "team", "key", "caller", "scope", "prompt"]
Change = tuple[str, str]

PENDING = "portico_changes"  # in the session's info


class PendingChange(Base):
    """A committed change that Redis may not have yet."""

    __tablename__ = "pending_change"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(16))
    object_id: Mapped[str]
    at: Mapped[datetime] = mapped_column(default=now)


def mark_for_publication(kind: Kind, id: str = "") -> None:
    """Record that `id` must be published after commit. Call it in the transaction that makes the change."""
    noted: set[Change] = db.session.info.setdefault(PENDING, set())
    if (kind, id) not in noted:
        noted.add((kind, id))
        db.session.add(PendingChange(kind=kind, object_id=id))
