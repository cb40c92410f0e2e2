"""Budgets: how much a scope can spend per period, in a time zone of its own, and how much it has spent.

The database holds the limits and publishes them. The meter in Redis counts what is spent and enforces the limits, so
pages show the figures that are enforced.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec
from redis import RedisError
from sqlalchemy import JSON, Select, String, UniqueConstraint, delete, select
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column

from app import current, store
from app.clock import from_ms, now, now_ms
from app.directory import Period, ScopeKind
from app.domain import amounts, audit
from app.domain.changes import mark_for_publication
from app.domain.errors import Forbidden, Invalid
from app.domain.person import Person
from app.extensions import Base, db
from app.metering import forecast, money, periods
from app.metering.scopes import team_and_person
from app.runtime.ids import new_id

KINDS: tuple[str, ...] = get_args(ScopeKind)
PERIODS: tuple[str, ...] = get_args(Period)
THRESHOLDS = (50, 80, 100)
MOST_THRESHOLDS = 10
Action = Literal["notify", "refuse", "suspend"]
ACTIONS: tuple[Action, ...] = get_args(Action)

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType


def scope_team(row: DefaultExecutionContext) -> str | None:
    """The column `team_id` of a new row that has a scope."""
    return _of_scope(row)[0]


def scope_person(row: DefaultExecutionContext) -> str | None:
    """The column `person_id` of a new row that has a scope."""
    return _of_scope(row)[1]


def _of_scope(row: DefaultExecutionContext) -> tuple[str | None, str | None]:
    given = row.get_current_parameters()  # type: ignore[no-untyped-call]
    return team_and_person(given["scope_kind"], given["scope_id"])


class Budget(Base):
    """The limit of one scope: `limit_nano` nano-units per period; `scope_id` as in `app.directory.Scope`."""

    __tablename__ = "budget"
    __table_args__ = (UniqueConstraint("scope_kind", "scope_id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    scope_kind: Mapped[str] = mapped_column(String(16))
    scope_id: Mapped[str] = mapped_column(String(80))
    # The team and the person that the scope names; set once at INSERT, as a scope never changes.
    team_id: Mapped[str | None] = mapped_column(String(36), default=scope_team, index=True)
    person_id: Mapped[str | None] = mapped_column(String(36), default=scope_person)
    limit_nano: Mapped[int]
    period: Mapped[str] = mapped_column(String(8))
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    # Percentages of the limit that raise an alert, and the action at one of them.
    thresholds: Mapped[list[int]] = mapped_column(
        JSON, default=lambda: list(THRESHOLDS), server_default="[50, 80, 100]"
    )
    action: Mapped[str] = mapped_column(
        String(16), default="notify", server_default="notify"
    )  # notify, refuse, suspend
    action_percent: Mapped[int] = mapped_column(default=100, server_default="100")
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    # What the scope spent in the current period before the budget existed: added to the counter once, under this id.
    opening_id: Mapped[str | None] = mapped_column(String(36))
    opening_period: Mapped[str | None] = mapped_column(String(64))
    opening_nano: Mapped[int] = mapped_column(default=0)
    # A sort column for lists: the ledger's sum of its counter; see `app.ledger.list_order`.
    spent_nano: Mapped[int] = mapped_column(default=0, server_default="0")
    spent_period: Mapped[str | None] = mapped_column(String(64))
    spent_at_ms: Mapped[int] = mapped_column(default=0, server_default="0")

    @property
    def spec(self) -> str:
        return periods.spec(self.period, self.timezone)  # type: ignore[arg-type]

    @property
    def enforced_nano(self) -> int:
        """The limit that the meter enforces, in nano-units: lower than `limit_nano` if the action `refuse` applies earlier."""
        return self.limit_nano * self.action_percent // 100 if self.action == "refuse" else self.limit_nano

    def summary(self) -> dict[str, Any]:
        return {
            "limit": money.text(self.limit_nano),
            "period": self.period,
            "timezone": self.timezone,
            **self._rules(),
        }

    def _rules(self) -> dict[str, Any]:
        return {"thresholds": list(self.thresholds), "action": self.action, "action_percent": self.action_percent}


class Rules(msgspec.Struct, frozen=True):
    """The percentages of a budget that raise an alert, and the action at one of them."""

    thresholds: tuple[int, ...]
    action: str
    action_percent: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A scope's budget and the meter's live figures, in nano-units.

    `limit_nano` is the limit that the meter enforces; `whole_nano` is the limit that was set, which is higher if new
    requests are refused from a percentage of it. `counted_nano` is None while the meter cannot be read, and negative if
    credits exceed what was spent. A `closed` standing has no amounts: the person looking has no access to them.
    """

    kind: str
    id: str
    limit_nano: int | None
    whole_nano: int | None = None
    period: str
    timezone: str
    counted_nano: int | None
    reserved_nano: int | None
    resets_at: datetime | None
    rules: Rules | None = None
    closed: bool = False

    def seen_by(self, person: Person) -> Standing:
        """The standing as this person can see it: only those who see everything see the organisation's amounts."""
        if self.kind != "organisation" or person.sees_everything:
            return self
        return msgspec.structs.replace(
            self, limit_nano=None, whole_nano=None, counted_nano=None, reserved_nano=None, rules=None, closed=True
        )

    @property
    def refuses_early(self) -> bool:
        """Whether new requests are refused before the limit is reached."""
        return self.limit_nano != self.whole_nano

    @property
    def spent_nano(self) -> int | None:
        """What was spent less credits, never below 0; None if unknown."""
        return None if self.counted_nano is None else max(0, self.counted_nano)

    @property
    def remaining_nano(self) -> int | None:
        """What new requests can still reserve, never below 0; None without a limit or if unknown."""
        if self.limit_nano is None or self.counted_nano is None:
            return None
        return max(0, self.limit_nano - self.counted_nano - (self.reserved_nano or 0))

    @property
    def forecast_nano(self) -> int | None:
        """What will have been spent at the end of the period if it goes on as so far; None without an end, too early in
        the period, or if unknown."""
        if self.counted_nano is None:
            return None
        moment_ms = now_ms()
        window = periods.window_of(periods.spec(self.period, self.timezone), moment_ms)  # type: ignore[arg-type]
        return forecast.at_end(self.counted_nano, window, moment_ms)

    @property
    def will_exceed(self) -> bool:
        """Whether the forecast is above the limit that was set."""
        return self.whole_nano is not None and (self.forecast_nano or 0) > self.whole_nano

    @property
    def over_nano(self) -> int:
        """How much was spent above the limit; 0 within it or if unknown."""
        if self.limit_nano is None or self.counted_nano is None:
            return 0
        return max(0, self.counted_nano - self.limit_nano)


def find(kind: str, id: str) -> Budget | None:
    return db.session.scalar(select(Budget).where(Budget.scope_kind == kind, Budget.scope_id == id))


def all_() -> Select[Budget]:
    """A query of all budgets."""
    return select(Budget).order_by(Budget.scope_kind, Budget.scope_id)


def set_budget(
    kind: ScopeKind,
    id: str,
    *,
    by: Person | None,
    limit: str | int,
    period: str | Unset = UNSET,
    timezone: str | Unset = UNSET,
    thresholds: Sequence[int] | Unset = UNSET,
    action: str | Unset = UNSET,
    action_percent: int | Unset = UNSET,
) -> Budget:
    """Create or change a scope's budget; `limit` is a decimal amount. It applies to /v1 within a second.

    Thresholds are percentages of the limit that raise an alert. From `action_percent` on, the action `refuse` refuses new
    requests and `suspend` pauses the key; only admins can set actions. `UNSET` keeps the current value, or in a new budget
    the default: a calendar month in UTC. Raises `Invalid` naming the field, or `Forbidden`.
    """
    limit_nano = amounts.read(limit, "limit", "The limit")
    budget = find(kind, id)
    if period is UNSET:
        period = budget.period if budget else "month"
    if timezone is UNSET:
        timezone = budget.timezone if budget else "UTC"
    if period not in PERIODS:
        raise Invalid(f"Choose one of {', '.join(PERIODS)}.", "period")
    timezone = read_timezone(timezone)
    counted_as = budget.spec if budget else None
    if budget is None:
        budget = Budget(
            scope_kind=kind, scope_id=id, thresholds=list(THRESHOLDS), action="notify", action_percent=THRESHOLDS[-1]
        )
        before = budget._rules()  # a new budget's history shows only values that differ from the defaults
        db.session.add(budget)
    else:
        before = budget.summary()
    budget.limit_nano, budget.period, budget.timezone = limit_nano, period, timezone
    _set_rules(budget, by, thresholds, action, action_percent)
    if budget.spec != counted_as:
        _open(budget)
    db.session.flush()
    audit.record(by, "budget.set", kind, id, before=before, after=budget.summary())
    mark_for_publication("scope", f"{kind}:{id}")
    return budget


def read_timezone(name: str) -> str:
    """The name of a time zone, without spaces around it. Raises `Invalid`."""
    if name.strip() not in periods.timezones():
        raise Invalid("Enter a time zone such as Europe/Berlin.", "timezone")
    return name.strip()


def read_thresholds(percentages: Sequence[int]) -> list[int]:
    """The percentages that raise an alert, in order. Raises `Invalid`."""
    wanted = sorted(set(percentages))
    if len(wanted) > MOST_THRESHOLDS or any(not 1 <= percent <= 100 for percent in wanted):
        raise Invalid(f"Enter at most {MOST_THRESHOLDS} percentages from 1 to 100.", "thresholds")
    return wanted


def _set_rules(
    budget: Budget,
    by: Person | None,
    thresholds: Sequence[int] | Unset,
    action: str | Unset,
    action_percent: int | Unset,
) -> None:
    if thresholds is not UNSET:
        budget.thresholds = read_thresholds(thresholds)
    acts = budget.action if action is UNSET else action, budget.action_percent
    acts = acts[0], acts[1] if action_percent is UNSET else action_percent
    if acts == (budget.action, budget.action_percent):
        return
    if by is not None and not by.is_admin:
        raise Forbidden("Only an admin can set a budget's action.")
    if acts[0] not in ACTIONS:
        raise Invalid(f"Choose one of {', '.join(ACTIONS)}.", "action")
    if acts[0] == "suspend" and budget.scope_kind != "key":
        raise Invalid("Only a key's budget can suspend.", "action")
    if not 1 <= acts[1] <= 100:
        raise Invalid("Enter a percentage from 1 to 100.", "action_percent")
    budget.action, budget.action_percent = acts


def _open(budget: Budget) -> None:
    """Start a budget that is new, or whose period changed, from what the ledger has for the current period."""
    from app.ledger import budgets as books

    window = periods.window_of(budget.spec, now_ms())
    budget.opening_id, budget.opening_period = new_id(), window.name
    budget.opening_nano = books.open_counter(budget.scope_kind, budget.scope_id, window)
    budget.spent_period = window.name
    budget.spent_nano = books.spent(budget.scope_kind, budget.scope_id, window.name)


def clear(kind: ScopeKind, id: str, *, by: Person | None) -> None:
    """Remove a scope's limit. Spending is still counted."""
    budget = find(kind, id)
    if budget is None:
        return
    audit.record(by, "budget.clear", kind, id, before=budget.summary())
    db.session.delete(budget)
    db.session.flush()
    mark_for_publication("scope", f"{kind}:{id}")


def forget(kind: str, id: str) -> None:
    """Delete the budget of a scope that is being deleted."""
    db.session.execute(delete(Budget).where(Budget.scope_kind == kind, Budget.scope_id == id))


def standing(kind: str, id: str) -> Standing:
    """One scope's budget with the meter's live figures."""
    return standings([(kind, id)])[0]


def standings(scopes: Sequence[tuple[str, str]]) -> list[Standing]:
    """The same for many scopes, in their order, by one query and one call to Redis."""
    if not scopes:
        return []
    kinds = {kind for kind, _ in scopes}
    ids = {id for _, id in scopes}
    rows = db.session.scalars(select(Budget).where(Budget.scope_kind.in_(kinds), Budget.scope_id.in_(ids)))
    budgets = {(row.scope_kind, row.scope_id): row for row in rows}
    moment_ms = now_ms()
    windows = []
    for scope in scopes:
        budget = budgets.get(scope)
        windows.append(periods.window_of(budget.spec if budget else periods.ALL_TIME, moment_ms))
    counters = _counters([(kind, id, window.name) for (kind, id), window in zip(scopes, windows, strict=True)])
    found = []
    for (kind, id), window, counter in zip(scopes, windows, counters, strict=True):
        budget = budgets.get((kind, id))
        found.append(
            Standing(
                kind=kind,
                id=id,
                limit_nano=budget.enforced_nano if budget else None,
                whole_nano=budget.limit_nano if budget else None,
                rules=Rules(tuple(budget.thresholds), budget.action, budget.action_percent) if budget else None,
                period=budget.period if budget else "total",
                timezone=budget.timezone if budget else "UTC",
                counted_nano=counter[0] if counter else None,
                reserved_nano=counter[1] if counter else None,
                resets_at=None if window.end_ms >= periods.FOR_EVER_MS else from_ms(window.end_ms),
            )
        )
    return found


def _counters(names: list[tuple[str, str, str]]) -> list[tuple[int, int] | None]:
    """(spent, held) of each counter in nano-units; None for each if Redis does not answer."""
    try:
        with current.redis().pipeline(transaction=False) as pipe:
            for kind, id, period in names:
                pipe.hmget(store.spent(kind, id, period), "spent", "held")
            return [(int(float(spent or 0)), int(float(held or 0))) for spent, held in pipe.execute()]
    except RedisError:
        return [None] * len(names)
