"""Credits: an admin adds room to a budget's current period, with a reason. Nothing is ever reset.

A credit is a ledger entry that costs nothing: it lowers what counts against the budget, and leaves usage and cost as they
are. Like every adjustment it moves the counter in one step; the ledger has it immediately.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from redis import Redis
from sqlalchemy import Select, select

from app import clock, store
from app.clock import from_ms
from app.domain import amounts, audit, budgets
from app.domain.audit import AuditEntry
from app.domain.errors import Conflict, Invalid
from app.extensions import db
from app.ledger import adjustments, posting
from app.ledger.entries import UsageEntry
from app.metering import money, periods
from app.metering.usage import UsageEvent

if TYPE_CHECKING:
    from app.domain.person import Person

LONGEST_REASON = 1000


class Credit(NamedTuple):
    """One credit as the ledger has it."""

    id: str
    kind: str
    scope_id: str
    period: str  # the counter's period name
    amount_nano: int
    by: str
    reason: str
    at: datetime


def give(redis: Redis, id: str, kind: str, scope_id: str, *, by: Person, amount: str | int, reason: str) -> Credit:
    """Add `amount`, a decimal, to the current period of a scope's budget. Call it last in a transaction.

    It is idempotent by `id`. Raises `Invalid` naming `amount` or `reason`, `Conflict` if the scope has no budget or the
    meter is closed, and `RedisError`.
    """
    budget = budgets.find(kind, scope_id)
    if budget is None:
        raise Conflict("This has no budget, so there is nothing to credit.")
    amount_nano = amounts.read_above_zero(amount)
    reason = reason.strip()
    if not reason:
        raise Invalid("Enter a reason. It is stored with the credit.", "reason")
    if len(reason) > LONGEST_REASON:
        raise Invalid(f"Use at most {LONGEST_REASON} characters.", "reason")
    now_ms = clock.now_ms()
    window = periods.window_of(budget.spec, now_ms)
    spent = int(redis.hget(store.spent(kind, scope_id, window.name), "spent") or 0)
    if budget.limit_nano - spent + amount_nano > money.MAX_NANO:
        raise Invalid("This credit would be too large.", "amount")
    event = UsageEvent(
        request_id=id, attempt=0, kind="credit", at_ms=now_ms, person_id="", model="", endpoint="", api_type="",
        outcome="ok", status=200, moved_nano=-amount_nano, scopes=((kind, scope_id, window.name),),
        error_message=f"{by.username}: {reason}",
    )  # fmt: skip
    # This transaction posts it; the stream posts it too, in case the commit fails after the counter moved.
    posting.post_within(db.session.connection(), [event])
    if not _is_audited(id, kind, scope_id):  # the ledger can have the credit from the stream alone
        after = {"amount": money.text(amount_nano)}
        audit.record(by, "budget.credit", kind, scope_id, after=after, reason=reason, facts={"credit": id})
    db.session.flush()  # errors of the database come before Redis is touched
    if adjustments.move(redis, event) == "closed":
        raise Conflict("The meter is being recounted. Try again in a minute.")
    at = from_ms(now_ms)
    return Credit(id, kind, scope_id, window.name, amount_nano, by.username, reason, at)


def _is_audited(id: str, kind: str, scope_id: str) -> bool:
    found = select(AuditEntry.id).where(
        AuditEntry.action == "budget.credit",
        AuditEntry.object_kind == kind,
        AuditEntry.object_id == scope_id,
        AuditEntry.detail["credit"].as_string() == id,
    )
    return db.session.scalar(found.limit(1)) is not None


def all_() -> Select[UsageEntry]:
    """A query of the entries of all credits, newest first. They have no person, so that an index finds them."""
    return (
        select(UsageEntry)
        .where(UsageEntry.person_id == "", UsageEntry.kind == "credit")
        .order_by(UsageEntry.at_ms.desc(), UsageEntry.id.desc())
    )


def from_entry(entry: UsageEntry) -> Credit:
    """The credit of an entry of `all_`."""
    kind, scope_id, period = entry.scopes[0]
    by, _, reason = (entry.error_message or "").partition(": ")
    return Credit(entry.request_id, kind, scope_id, period, -entry.moved_nano, by, reason, entry.at)
