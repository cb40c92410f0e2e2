"""Reconciling: compares Redis's counters with the ledger.

Under load the two can't be read at the same moment. A difference is drift only if it stays the same over several looks,
with the events that wait in the stream added to the ledger's sums. Nothing repairs drift automatically: an admin can move
one counter by the difference. That step also appends the ledger entry that records it; no entry is ever changed.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog
from redis import Redis
from sqlalchemy import select

from app import clock, store
from app.domain import audit
from app.domain.errors import Conflict
from app.extensions import db
from app.ledger import adjustments, budgets, posting
from app.ledger.entries import UsageEntry
from app.metering import money
from app.metering.usage import UsageEvent
from app.runtime.ids import new_id
from app.workflows import dead_letters

if TYPE_CHECKING:
    from app.domain.person import Person

LOOKS = 3
BETWEEN_LOOKS_S = 0.3
RECENT_MS = 2 * 3_600_000
MOST_WAITING = 20_000  # entries of the stream that it reads at most
SHORTEST_MS = {"day": 22 * 3_600_000, "week": 6 * 86_400_000, "month": 27 * 86_400_000}

Name = tuple[str, str, str]  # scope kind, scope id, period name
SPELLED = re.compile(r"([a-z]+):([^\x00]+):(total|(?:day|week|month)-\d{1,12})")  # a `Drift.name`

log = structlog.get_logger(__name__)

_decode = msgspec.json.Decoder(UsageEvent).decode


class Drift(NamedTuple):
    """A counter that differs from the ledger; amounts in nano-units."""

    kind: str
    id: str
    period: str
    counted_nano: int  # in Redis
    booked_nano: int  # in the ledger and on the way to it

    @property
    def nano(self) -> int:
        return self.counted_nano - self.booked_nano

    @property
    def name(self) -> str:
        """The counter's name as one string, for addresses and the audit log."""
        return ":".join(self[:3])


class Comparison(NamedTuple):
    """The number of compared counters, and those that drift."""

    compared: int
    drift: list[Drift]


def compare(redis: Redis, *, recent_ms: int = RECENT_MS, pause_s: float = BETWEEN_LOOKS_S) -> Comparison:
    """Compare the counters of current periods that were charged in the last `recent_ms` with the ledger.

    Each drift is logged as an error. Nothing is compared while more than `MOST_WAITING` events wait in the stream.
    Raises `RedisError` and SQLAlchemy's errors.
    """
    names = [name for name in budgets.charged_since(_now_ms() - recent_ms) if _runs(name[2])]
    db.session.rollback()
    found = _lasting(redis, names, pause_s)
    if found is None:
        return Comparison(0, [])
    for drift in found:
        log.error("a counter differs from the ledger", **drift._asdict(), drift_nano=drift.nano)
    return Comparison(len(names), found)


def find(redis: Redis, name: str, *, pause_s: float = BETWEEN_LOOKS_S) -> Drift | None:
    """The current drift of the counter with this `Drift.name`; None if there is none, or its period is over."""
    spelled = SPELLED.fullmatch(name)
    if spelled is None or not _runs(spelled[3]):
        return None
    found = _lasting(redis, [(spelled[1], spelled[2], spelled[3])], pause_s)
    return found[0] if found else None


def again(redis: Redis, drift: Drift) -> Drift | None:
    """The drift with the counter's current value, if the difference is still the same; else None."""
    found = _look(redis, [drift[:3]])
    return found[0] if found and found[0].nano == drift.nano else None


def repair(redis: Redis, drift: Drift, *, by: Person) -> None:
    """Move one Redis counter by exactly its drift, in one step and only if it still has the compared value. The same step
    appends a `repair` event to the stream.

    The event records the amount and costs nothing: counters are rebuilt from the ledger, so the counter was wrong. A cost
    would change both sides, keep the difference, and charge or refund people for nothing. Nothing is repaired while dead
    letters are open: they can be the difference.

    Call it last in a transaction, which then commits the audit entry; it is logged in any case. Raises `Conflict` if the
    counter has moved, the meter is closed or dead letters are open.
    """
    if waiting := dead_letters.open_count():
        raise IncompleteLedger(
            f"{waiting} dead {'letter is' if waiting == 1 else 'letters are'} open and can be the difference."
            " Post or dismiss them first."
        )
    counted, booked = money.text(drift.counted_nano), money.text(drift.booked_nano)
    audit.record(
        by, "drift.repair", "counter", drift.name, before={"spent": counted}, after={"spent": booked},
        reason=f"moved by {money.text(-drift.nano)}",
    )  # fmt: skip
    db.session.flush()  # errors of the database come before Redis is touched
    verdict = adjustments.move(redis, _event(drift, by), only_from=drift.counted_nano)
    if verdict == "closed":
        raise Conflict("The meter is being recounted, which repairs every counter.")
    if verdict == "changed":
        raise Moved("The counter has changed meanwhile. Nothing was repaired.")
    log.warning("a counter was repaired", **drift._asdict(), drift_nano=drift.nano, by=by.username)


def _event(drift: Drift, by: Person) -> UsageEvent:
    """The event of a repair: which counter was moved by how much, at no cost."""
    return UsageEvent(
        request_id=new_id(), attempt=0, kind="repair", at_ms=_now_ms(), person_id="", model="", endpoint="",
        api_type="", outcome="ok", status=200, moved_nano=-drift.nano, scopes=(drift[:3],),
        error_message=f"Repaired by {by.username}: Redis had {money.text(drift.counted_nano)}, the ledger"
        f" {money.text(drift.booked_nano)}.",
    )  # fmt: skip


def repairs(limit: int = 20) -> list[UsageEntry]:
    """The newest `limit` repairs, newest first."""
    query = (
        select(UsageEntry).where(UsageEntry.kind == "repair").order_by(UsageEntry.at_ms.desc(), UsageEntry.id.desc())
    )
    return list(db.session.scalars(query.limit(limit)))


class Moved(Conflict):
    """The counter was charged between the comparison and the repair; comparing once more may help."""


class IncompleteLedger(Conflict):
    """Dead letters are open, so the ledger can be incomplete and no counter can be repaired by it."""


def _lasting(redis: Redis, names: list[Name], pause_s: float) -> list[Drift] | None:
    """The differences that stay the same over several looks; None while too much waits in the stream."""
    differing: dict[Name, Drift] = {}
    for look in range(LOOKS):
        found = _look(redis, names)
        if found is None:
            return None
        differing = {
            drift[:3]: drift
            for drift in found
            if look == 0 or (drift[:3] in differing and differing[drift[:3]].nano == drift.nano)
        }
        names = list(differing)
        if not names:
            break
        if look < LOOKS - 1:
            time.sleep(pause_s)
    return list(differing.values())


def _look(redis: Redis, names: list[Name]) -> list[Drift] | None:
    """The counters that differ now; None while too much waits in the stream."""
    with redis.pipeline(transaction=True) as pipe:  # counters and waiting events at one moment
        pipe.xrange(store.USAGE, count=MOST_WAITING)
        for name in names:
            pipe.hget(store.spent(*name), "spent")
        waiting, *counted = pipe.execute()
    if len(waiting) >= MOST_WAITING:
        return None
    events = _events(waiting)
    booked = budgets.spent_of(names)
    known = posting.known(events)
    db.session.rollback()  # the next look must not reuse this one's snapshot
    for event in events:
        if (event.request_id, event.kind) not in known:
            for scope in event.scopes:
                booked[scope] = booked.get(scope, 0) + budgets.charged_nano(event)
    return [
        Drift(*name, int(spent or 0), booked.get(name, 0))
        for name, spent in zip(names, counted, strict=True)
        if int(spent or 0) != booked.get(name, 0)
    ]


def _events(entries: list[tuple[str, dict[str, str]]]) -> list[UsageEvent]:
    events = []
    for _, fields in entries:
        try:
            events.append(_decode(fields["e"]))
        except (KeyError, msgspec.DecodeError):
            continue  # the drainer makes a dead letter of it
    return events


def _runs(period: str) -> bool:
    """Whether the period with this name has certainly not ended: Redis may have dropped the counters of past ones."""
    kind, _, start_s = period.partition("-")
    return period == "total" or _now_ms() < int(start_s or 0) * 1000 + SHORTEST_MS.get(kind, 0)


def _now_ms() -> int:
    return clock.now_ms()
