"""Alerts: once per period, a budget that crosses a threshold notifies the people concerned.

Alerts use what the ledger has as spent, so an alert never shows more than the pages do. A budget with the action `suspend`
also pauses its key, once per period, so that a resumed key stays active.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from redis import RedisError
from sqlalchemy import Index, Select, String, select, tuple_
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Mapped, mapped_column

from app import current, store
from app.clock import from_ms, now, now_ms
from app.domain import keys, notices, payers
from app.domain.budgets import Budget
from app.domain.payers import Payer
from app.extensions import Base, db, transaction
from app.ledger import budgets as books
from app.metering import money, periods

CHUNK = 400  # scopes per query
MOST_EXHAUSTED = 10_000  # scopes per read from Redis
# After a refusal, a budget counts as used up if at most this share of the limit remains, or if most of it is spent and an
# average call no longer fits.
NEARLY_NOTHING, MOST_PERCENT, TOO_FEW_CALLS = 20, 80, 4


class BudgetAlert(Base):
    """A threshold that was crossed. Its primary key allows one alert per scope, period and threshold."""

    __tablename__ = "budget_alert"
    __table_args__ = (Index(None, "at"),)

    scope_kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    scope_id: Mapped[str] = mapped_column(String(80), primary_key=True)
    period: Mapped[str] = mapped_column(
        String(64), primary_key=True
    )  # the counter's period name, e.g. "month-1764547200"
    # A percentage of the limit; negative for the action taken at that percentage.
    threshold: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    spent_nano: Mapped[int]
    limit_nano: Mapped[int]
    at: Mapped[datetime] = mapped_column(default=now)

    @property
    def is_action(self) -> bool:
        return self.threshold < 0

    @property
    def percent(self) -> int:
        return abs(self.threshold)


class _Crossing(NamedTuple):
    """A budget that has crossed thresholds, as plain values: the transaction comes later."""

    kind: str
    id: str
    period: str
    ends_ms: int
    limit_nano: int
    spent_nano: int
    action: str
    action_percent: int
    thresholds: tuple[int, ...]  # without those already raised, lowest first
    refuses: bool  # a request was refused because hardly anything is left


def raise_for(counters: Collection[tuple[str, str, str]], exhausted: Collection[tuple[str, str]] = ()) -> int:
    """Raise the alerts for thresholds that the budgets of these counters have newly crossed; return how many.

    `exhausted` are scopes whose budgets refused a request; these count as used up if hardly anything is left. It runs a
    transaction of its own if there is an alert to raise.
    """
    db.session.rollback()  # read current values, not those of an older snapshot of this session
    scopes = {(kind, id) for kind, id, _ in counters} | set(exhausted)
    return _raise(list(_crossings(_budgets_of(scopes), frozenset(exhausted))))


def raise_due() -> int:
    """The same for all budgets: for alerts that were missed, and for limits that were lowered."""
    db.session.rollback()
    return _raise(list(_crossings(list(db.session.scalars(select(Budget))), frozenset())))


def exhausted() -> list[tuple[str, str]]:
    """Read and remove from Redis the scopes whose budgets recently had no room even for a short answer."""
    try:
        found = current.redis().spop(store.EXHAUSTED, MOST_EXHAUSTED)
    except RedisError:
        return []
    return [(kind, id) for kind, _, id in (str(text).partition(":") for text in found or ())]


def of_scope(kind: str, id: str) -> Select[BudgetAlert]:
    """A query of a scope's alerts, newest first."""
    return (
        select(BudgetAlert)
        .where(BudgetAlert.scope_kind == kind, BudgetAlert.scope_id == id)
        .order_by(BudgetAlert.at.desc(), BudgetAlert.threshold.desc())
    )


# --- finding crossed thresholds ---


def _budgets_of(scopes: Collection[tuple[str, str]]) -> list[Budget]:
    found: list[Budget] = []
    ids = sorted({id for _, id in scopes})
    for start in range(0, len(ids), CHUNK):
        found += db.session.scalars(select(Budget).where(Budget.scope_id.in_(ids[start : start + CHUNK])))
    return [budget for budget in found if (budget.scope_kind, budget.scope_id) in scopes]


def _crossings(found: Sequence[Budget], exhausted: frozenset[tuple[str, str]]) -> Iterator[_Crossing]:
    moment_ms = now_ms()
    windows = {(one.scope_kind, one.scope_id): periods.window_of(one.spec, moment_ms) for one in found}
    spent = books.spent_and_entries([(*scope, window.name) for scope, window in windows.items()])
    near: list[tuple[Budget, int, bool, list[int]]] = []
    for budget in found:
        scope = budget.scope_kind, budget.scope_id
        nano, entries = spent.get((*scope, windows[scope].name), (0, 0))
        refuses = scope in exhausted and _hardly_anything_is_left(budget, nano, entries)
        if crossed := _crossed(budget, nano, refuses):
            near.append((budget, nano, refuses, crossed))
    raised = _already_raised(
        [(*scope, windows[scope].name) for scope in ((b.scope_kind, b.scope_id) for b, *_ in near)]
    )
    for budget, nano, refuses, crossed in near:
        kind, id = budget.scope_kind, budget.scope_id
        window = windows[kind, id]
        if new := [percent for percent in crossed if (kind, id, window.name, percent) not in raised]:
            yield _Crossing(
                kind, id, window.name, window.end_ms, budget.limit_nano, nano, budget.action, budget.action_percent,
                tuple(new), refuses,
            )  # fmt: skip


def _crossed(budget: Budget, spent_nano: int, refuses: bool) -> list[int]:
    """The crossed percentages, lowest first, and that of the action as a negative number once it is due. A limit of 0
    crosses none: it is deliberate."""
    if budget.limit_nano == 0:
        return []
    wanted = set(budget.thresholds)
    if budget.action == "refuse":
        wanted.add(budget.action_percent)  # people must know that requests are refused from there on
    ends = budget.action_percent if budget.action == "refuse" else 100

    def reached(percent: int) -> bool:
        return spent_nano * 100 >= percent * budget.limit_nano or (refuses and percent <= ends)

    crossed = sorted(percent for percent in wanted if reached(percent))
    if budget.action == "suspend" and reached(budget.action_percent):
        crossed.append(-budget.action_percent)
    return crossed


def _hardly_anything_is_left(budget: Budget, spent_nano: int, entries: int) -> bool:
    """Whether a refusal means that the budget is used up, and not that one request was too large for it."""
    left = budget.enforced_nano - spent_nano
    most_is_spent = spent_nano * 100 >= MOST_PERCENT * budget.enforced_nano
    return left * NEARLY_NOTHING <= budget.limit_nano or (
        most_is_spent and left * entries <= TOO_FEW_CALLS * spent_nano
    )


def _already_raised(counters: Sequence[tuple[str, str, str]]) -> set[tuple[str, str, str, int]]:
    columns = BudgetAlert.scope_kind, BudgetAlert.scope_id, BudgetAlert.period, BudgetAlert.threshold
    found: set[tuple[str, str, str, int]] = set()
    for start in range(0, len(counters), CHUNK):
        query = select(*columns).where(tuple_(*columns[:3]).in_(counters[start : start + CHUNK]))
        found.update((row[0], row[1], row[2], row[3]) for row in db.session.execute(query))
    return found


# --- raising ---


def _raise(crossings: Sequence[_Crossing]) -> int:
    return transaction(_write, crossings) if crossings else 0


def _write(crossings: Iterable[_Crossing]) -> int:
    rows: list[dict[str, Any]] = [
        {
            "scope_kind": one.kind,
            "scope_id": one.id,
            "period": one.period,
            "threshold": percent,
            "spent_nano": one.spent_nano,
            "limit_nano": one.limit_nano,
            "at": now(),
        }
        for one in sorted(crossings)
        for percent in one.thresholds
    ]
    by_scope = {(one.kind, one.id): one for one in crossings}
    inserted = []
    for row in rows:  # whoever inserts the row sends the alert; the order avoids deadlocks
        insert = _insert()(BudgetAlert).values(row).on_conflict_do_nothing().returning(BudgetAlert.threshold)
        if db.session.execute(insert).all():
            inserted.append(row)
    known = payers.read(by_scope)
    for scope, one in by_scope.items():
        raised = [row["threshold"] for row in inserted if (row["scope_kind"], row["scope_id"]) == scope]
        if scope in known and raised:
            _tell(known[scope], one, raised)
    return len(inserted)


def _tell(payer: Payer, crossing: _Crossing, raised: Sequence[int]) -> None:
    """Take the actions, and notify of the highest of the thresholds that were crossed together: one jump is one notice."""
    if (highest := max(raised)) > 0:
        _notify(payer, crossing, highest)
    if any(percent < 0 for percent in raised):
        _suspend(payer, crossing)


def _insert() -> Any:
    """This database's INSERT with ON CONFLICT."""
    return postgresql_insert if db.engine.dialect.name == "postgresql" else sqlite_insert


def _notify(payer: Payer, crossing: _Crossing, percent: int) -> None:
    share = money.percent(crossing.spent_nano, crossing.limit_nano, 0)  # as pages show it
    refused = crossing.action == "refuse" and percent >= crossing.action_percent
    if crossing.refuses and percent <= 100 and crossing.spent_nano * 100 < percent * crossing.limit_nano:
        title = f"Budget for {payer.name}: used up, new requests are refused"
    elif refused:
        title = f"Budget for {payer.name}: {percent}% spent, new requests are refused"
    else:
        title = f"Budget for {payer.name}: {percent}% spent"
    resets_at = None if crossing.ends_ms >= periods.FOR_EVER_MS else from_ms(crossing.ends_ms)
    sentences = [f"{_with_currency(crossing.spent_nano)} of {_with_currency(crossing.limit_nano)} spent ({share})."]
    if refused and crossing.action_percent < 100:
        sentences.append(f"New requests are refused from {crossing.action_percent}% on.")
    sentences.append(f"It resets at {resets_at:%Y-%m-%d %H:%M} UTC." if resets_at else "It does not reset.")
    sentences.append("You can request an increase on its page.")
    notices.notify_all(
        payers.people_to_alert(payer),
        "budget.alert",
        title,
        " ".join(sentences),
        payer.path,
        about={
            "scope": payer.kind,
            "scope_id": payer.public_id,
            "threshold": percent,
            "percent": round(crossing.spent_nano * 100 / crossing.limit_nano),
            "spent": money.text(crossing.spent_nano),
            "limit": money.text(crossing.limit_nano),
            "resets_at": resets_at.strftime("%Y-%m-%dT%H:%M:%SZ") if resets_at else None,
        },
    )


def _suspend(payer: Payer, crossing: _Crossing) -> None:
    key = db.session.get(keys.ApiKey, payer.id)
    if key is None or key.status != "active":
        return
    reason = f"{crossing.action_percent}% of its budget is spent. It stays paused until somebody resumes it."
    keys.pause(key, by=None, reason=reason)
    for person in payers.people_to_alert(payer):
        if person.id != key.person_id:  # the pause notifies the owner
            title = f"The key {key.name} was paused"
            notices.notify(person, "key.paused", title, reason, keys.page_of(key.id), by_webhook=False)


def _with_currency(nano: int) -> str:
    return f"{money.text(nano)} {current.config().portal.currency}"
