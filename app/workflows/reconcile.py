"""Reconciling: do Redis's counters say what the books say?

Under load the two are never read at one instant, so a difference counts only when it stays the same over several
looks with all that still waits in the stream added to the books; then it is drift. Nothing repairs it by itself: an
admin may have one counter moved by the difference. That step tells the books in the same instant, as every step of a
counter does: a repair is an entry of its own, and no entry is ever changed.
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
MOST_WAITING = 20_000  # entries of the stream that are looked at
SHORTEST_MS = {"day": 22 * 3_600_000, "week": 6 * 86_400_000, "month": 27 * 86_400_000}

Name = tuple[str, str, str]  # scope kind, scope id, period name
SPELLED = re.compile(r"([a-z]+):([^\x00]+):(total|(?:day|week|month)-\d{1,12})")  # a `Drift.name`

log = structlog.get_logger(__name__)

_decode = msgspec.json.Decoder(UsageEvent).decode


class Drift(NamedTuple):
    """A counter that differs from the books: nano-units each."""

    kind: str
    id: str
    period: str
    counted_nano: int  # by Redis
    booked_nano: int  # in the ledger and on the way to it

    @property
    def nano(self) -> int:
        return self.counted_nano - self.booked_nano

    @property
    def name(self) -> str:
        """The counter's name in one word, for addresses and the audit."""
        return ":".join(self[:3])


class Comparison(NamedTuple):
    """How many counters were compared, and those that drift."""

    compared: int
    drift: list[Drift]


def compare(redis: Redis, *, recent_ms: int = RECENT_MS, pause_s: float = BETWEEN_LOOKS_S) -> Comparison:
    """Compare the counters of running periods that were charged in the last `recent_ms` with the books.

    Each drift is logged as an error. While more waits in the stream than can be looked at, nothing is compared.
    Raises `RedisError` and SQLAlchemy's errors.
    """
    names = [name for name in budgets.charged_since(_now_ms() - recent_ms) if _runs(name[2])]
    db.session.rollback()
    found = _lasting(redis, names, pause_s)
    if found is None:
        return Comparison(0, [])
    for drift in found:
        log.error("a counter differs from the books", **drift._asdict(), drift_nano=drift.nano)
    return Comparison(len(names), found)


def find(redis: Redis, name: str, *, pause_s: float = BETWEEN_LOOKS_S) -> Drift | None:
    """The drift of one counter now, by the name that `Drift.name` spells; None when there is none to be told.

    Periods that are over are left alone, as nothing asks their counters any more.
    """
    spelled = SPELLED.fullmatch(name)
    if spelled is None or not _runs(spelled[3]):
        return None
    found = _lasting(redis, [(spelled[1], spelled[2], spelled[3])], pause_s)
    return found[0] if found else None


def again(redis: Redis, drift: Drift) -> Drift | None:
    """The same drift with the counter's present value, for a counter that was charged meanwhile; else None."""
    found = _look(redis, [drift[:3]])
    return found[0] if found and found[0].nano == drift.nano else None


def repair(redis: Redis, drift: Drift, *, by: Person) -> None:
    """Moves one Redis counter by exactly its drift, in one step and only if it still has the value compared; the same
    step appends a `repair` entry to the books, by the way of every usage event.

    The entry tells what was moved and costs nothing: the ledger is the truth that every counter is rebuilt from, so
    the counter is what was wrong. A cost would move both sides, keep the difference, and charge or refund people for
    what never happened. So that a repair never covers what the books lack, nothing is repaired while dead letters
    wait for a decision: they may be the difference.

    To be the last act of a unit of work, whose audit entry is then committed; the log tells it in any case. Raises
    `Conflict` when the counter has moved, the meter is closed or letters wait.
    """
    if waiting := dead_letters.open_count():
        raise DoubtfulBooks(
            f"{waiting} dead {'letter waits' if waiting == 1 else 'letters wait'} for a decision and may be what the"
            " books lack. Post or dismiss them first."
        )
    counted, booked = money.text(drift.counted_nano), money.text(drift.booked_nano)
    audit.record(
        by, "drift.repair", "counter", drift.name, before={"spent": counted}, after={"spent": booked},
        reason=f"moved by {money.text(-drift.nano)}",
    )  # fmt: skip
    db.session.flush()  # whatever the database may refuse, it refuses before Redis is touched
    verdict = adjustments.move(redis, _told(drift, by), only_from=drift.counted_nano)
    if verdict == "closed":
        raise Conflict("The meter is being counted anew, which repairs every counter by itself.")
    if verdict == "changed":
        raise Moved("The counter has moved meanwhile. Nothing was changed.")
    log.warning("a counter was repaired", **drift._asdict(), drift_nano=drift.nano, by=by.username)


def _told(drift: Drift, by: Person) -> UsageEvent:
    """The entry that a repair makes: whose counter was moved by how much, at no cost."""
    return UsageEvent(
        request_id=new_id(), attempt=0, kind="repair", at_ms=_now_ms(), person_id="", model="", endpoint="",
        api_type="", outcome="ok", status=200, moved_nano=-drift.nano, scopes=(drift[:3],),
        error_message=f"Repaired by {by.username}: Redis had {money.text(drift.counted_nano)}, the books"
        f" {money.text(drift.booked_nano)}.",
    )  # fmt: skip


def repairs(limit: int = 20) -> list[UsageEntry]:
    """The last repairs, newest first."""
    query = (
        select(UsageEntry).where(UsageEntry.kind == "repair").order_by(UsageEntry.at_ms.desc(), UsageEntry.id.desc())
    )
    return list(db.session.scalars(query.limit(limit)))


class Moved(Conflict):
    """The counter was charged between the comparison and the repair; comparing once more may help."""


class DoubtfulBooks(Conflict):
    """Something may be missing from the books, so that they are not what to repair a counter by."""


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
    with redis.pipeline(transaction=True) as pipe:  # counters and what waits, of one instant
        pipe.xrange(store.USAGE, count=MOST_WAITING)
        for name in names:
            pipe.hget(store.spent(*name), "spent")
        waiting, *counted = pipe.execute()
    if len(waiting) >= MOST_WAITING:
        return None
    events = _events(waiting)
    booked = budgets.spent_of(names)
    known = posting.known(events)
    db.session.rollback()  # the next look must not see this one's moment again
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
    """Whether a period of this name surely still runs: the counters of past ones may be gone from Redis."""
    kind, _, start_s = period.partition("-")
    return period == "total" or _now_ms() < int(start_s or 0) * 1000 + SHORTEST_MS.get(kind, 0)


def _now_ms() -> int:
    return clock.now_ms()
