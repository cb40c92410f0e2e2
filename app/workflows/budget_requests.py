"""Budget requests: a person requests an increase of a budget, once or permanently, and an approver decides.

A permanent grant raises the limit. A grant for once is a credit: a ledger entry that adds room to the current period of
that one budget, and changes nothing else.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple, get_args

from sqlalchemy import ForeignKey, Index, Select, String, Text, func, or_, select, tuple_
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app import current
from app.clock import from_ms, now, now_ms
from app.domain import amounts, audit, budgets, notices, payers, teams
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.keys import ApiKey
from app.domain.payers import Payer
from app.domain.person import Person
from app.domain.teams import Membership
from app.extensions import Base, db
from app.ledger import budgets as books
from app.metering import forecast, money, periods
from app.runtime.ids import new_id
from app.workflows import credits

Status = Literal["pending", "granted", "denied", "withdrawn"]
STATUSES: tuple[Status, ...] = get_args(Status)
DECISIONS = ("grant", "deny")
LONGEST_TEXT = 1000
LOOKED_BACK = 3  # periods of a scope's spending that the approver sees


class BudgetRequest(Base):
    """A request to add `amount_nano` to a scope's budget: in each period from now on if `lasting`, else once."""

    __tablename__ = "budget_request"
    __table_args__ = (Index(None, "status", "created_at"), Index(None, "scope_kind", "scope_id"))

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    scope_kind: Mapped[str] = mapped_column(String(16))
    scope_id: Mapped[str] = mapped_column(String(80))
    team_id: Mapped[str | None] = mapped_column(String(36), default=budgets.scope_team, index=True)
    # The requester. For a member's cap it is the person that the scope names, as the cap pays for that member alone.
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    amount_nano: Mapped[int]
    lasting: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    decided_by: Mapped[str | None] = mapped_column(String(64))
    decided_at: Mapped[datetime | None]
    decision_reason: Mapped[str | None] = mapped_column(Text)
    granted_nano: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now)

    person: Mapped[Person] = relationship(lazy="joined")

    @property
    def scope(self) -> payers.Scope:
        return self.scope_kind, self.scope_id

    @property
    def path(self) -> str:
        """The path of its page."""
        return f"/budget-requests/{self.id}"

    @property
    def is_pending(self) -> bool:
        return self.status == "pending"


# --- finding ---


def visible_to(person: Person) -> Select[BudgetRequest]:
    """A query of the requests that a person can see, newest first: their own, those that they can decide as a team's
    owner, and all for admins."""
    query = select(BudgetRequest).order_by(BudgetRequest.id.desc())
    if person.sees_everything:
        return query
    owned = select(Membership.team_id).where(Membership.person_id == person.id, Membership.role == "owner")
    of_keys = select(ApiKey.id).where(ApiKey.team_id.in_(owned))
    of_members = select(Membership.team_id, Membership.person_id).where(Membership.team_id.in_(owned))
    asks_as = tuple_(BudgetRequest.team_id, BudgetRequest.person_id)
    return query.where(
        or_(
            BudgetRequest.person_id == person.id,
            (BudgetRequest.scope_kind == "key") & BudgetRequest.scope_id.in_(of_keys),
            (BudgetRequest.scope_kind == "member") & asks_as.in_(of_members),
        )
    )


def get_visible(person: Person, id: str) -> BudgetRequest:
    """The request with this id if the person can see it. Raises `NotFound`."""
    request = db.session.scalar(visible_to(person).where(BudgetRequest.id == id))
    if request is None:
        raise NotFound("This request does not exist.")
    return request


def about(payer: Payer) -> Select[BudgetRequest]:
    """A query of all requests for a scope, newest first."""
    return (
        select(BudgetRequest)
        .where(BudgetRequest.scope_kind == payer.kind, BudgetRequest.scope_id == payer.id)
        .order_by(BudgetRequest.id.desc())
    )


def pending_of_team(team_id: str) -> Select[BudgetRequest]:
    """A query of the pending requests that a team's owners decide: for its keys and its members' caps."""
    of_keys = select(ApiKey.id).where(ApiKey.team_id == team_id)
    inside = (BudgetRequest.scope_kind == "key") & BudgetRequest.scope_id.in_(of_keys)
    caps = (BudgetRequest.scope_kind == "member") & (BudgetRequest.team_id == team_id)
    return (
        select(BudgetRequest)
        .where(BudgetRequest.status == "pending", or_(inside, caps))
        .order_by(BudgetRequest.id.desc())
    )


def pending_count() -> Select[int]:
    """A query of the number of pending requests."""
    return select(func.count()).select_from(BudgetRequest).where(BudgetRequest.status == "pending")


def pending(person: Person, payer: Payer) -> BudgetRequest | None:
    """A person's pending request for a scope; None if there is none."""
    return db.session.scalar(
        about(payer).where(BudgetRequest.person_id == person.id, BudgetRequest.status == "pending").limit(1)
    )


# --- figures for the approver ---


class PeriodCost(NamedTuple):
    """The cost of a scope's calls in one period of its budget, in nano-units. `forecast_nano` extrapolates the current
    period to its end; it is None for earlier ones."""

    start: datetime
    end: datetime | None
    cost_nano: int
    forecast_nano: int | None = None


def period_costs(payer: Payer) -> list[PeriodCost]:
    """The current period of a scope's budget and earlier ones, newest first; empty without a budget."""
    budget = budgets.find(*payer.scope)
    if budget is None:
        return []
    moment_ms = now_ms()
    windows = [periods.window_of(budget.spec, moment_ms)]
    while len(windows) < LOOKED_BACK and windows[-1].end_ms < periods.FOR_EVER_MS:
        windows.append(periods.window_of(budget.spec, windows[-1].start_ms - 1))
    spans = [(window.start_ms, min(window.end_ms, moment_ms + 60_000)) for window in windows]
    spells: list[PeriodCost] = []
    for window, cost in zip(windows, books.spent_in(payer.kind, payer.id, *spans), strict=True):
        ends = window.end_ms < periods.FOR_EVER_MS
        expected = forecast.at_end(cost, window, moment_ms) if not spells else None
        spells.append(PeriodCost(from_ms(window.start_ms), from_ms(window.end_ms) if ends else None, cost, expected))
    return spells


# --- verbs ---


def ask(payer: Payer, *, by: Person, amount: str | int, lasting: bool, reason: str) -> BudgetRequest:
    """Request an increase of a budget, for each period if `lasting`, else once.

    Raises `Invalid` naming the field, `Forbidden` if the budget does not pay for `by`, or `Conflict` if there is no limit
    or a request is pending.
    """
    if not payers.charges(by, payer):
        raise Forbidden("Only people whose calls this budget pays for can request an increase.")
    if budgets.find(*payer.scope) is None:
        raise Conflict("This budget has no limit, so there is nothing to increase.")
    if pending(by, payer) is not None:
        raise Conflict("You already have a pending request for this budget.")
    request = BudgetRequest(
        id=new_id(), scope_kind=payer.kind, scope_id=payer.id, person_id=by.id, amount_nano=amounts.read_above_zero(amount),
        lasting=lasting, reason=_words(reason, "Enter a reason."), person=by,
    )  # fmt: skip
    db.session.add(request)
    db.session.flush()
    audit.record(
        by, "budget.request", payer.kind, payer.id, name=payer.name,
        after={"amount": money.text(request.amount_nano), "lasting": lasting}, reason=request.reason,
    )  # fmt: skip
    title = f"{by.username} requests {_with_currency(request.amount_nano)} more for {payer.name}"
    deciders = [person for person in _deciders(payer) if person.id != by.id]
    notices.notify_all(deciders, "budget.request", title, request.reason, request.path, about={"request": request.id})
    return request


def withdraw(request: BudgetRequest, *, by: Person) -> BudgetRequest:
    """Withdraw one's own request. Raises `Forbidden`, or `Conflict` if it is already decided."""
    if by.id != request.person_id:
        raise Forbidden("Only the requester can withdraw this request.")
    _must_be_pending(request)
    request.status, request.decided_at = "withdrawn", now()
    audit.record(by, "budget.request.withdraw", request.scope_kind, request.scope_id)
    return request


def decide(
    request: BudgetRequest, decision: str, *, by: Person, amount: str | int | None = None, reason: str | None = None
) -> BudgetRequest:
    """Grant a request, with `amount` instead of the requested amount if given, or deny it with a reason. It notifies the
    requester.

    Call it last in a transaction: a grant for once moves a counter in Redis. Raises `Invalid` naming the field,
    `Forbidden`, or `Conflict` if the request is already decided or the budget is gone.
    """
    payer = payers.read([request.scope]).get(request.scope)
    if payer is None and decision == "grant":
        raise Conflict("The budget of this request no longer exists. You can only deny the request.")
    if not (payers.may_decide(by, payer) if payer else by.is_admin):
        raise Forbidden("Deciding this needs the role admin, or the role owner in the team of the key or member.")
    if decision not in DECISIONS:
        raise Invalid(f"Choose one of {', '.join(DECISIONS)}.", "decision")
    _must_be_pending(request)
    said = (reason or "").strip()
    if decision == "deny":
        said = _words(said, "Enter a reason. It is shown to the person.")
    elif len(said) > LONGEST_TEXT:
        raise Invalid(f"Use at most {LONGEST_TEXT} characters.", "reason")
    budget = budgets.find(*request.scope)
    if decision == "grant" and budget is None:
        raise Conflict("This budget no longer has a limit, so there is nothing to increase.")
    granted = None if decision == "deny" else request.amount_nano if amount is None else amounts.read_above_zero(amount)
    request.status = "denied" if granted is None else "granted"
    request.granted_nano, request.decided_by, request.decided_at = granted, by.username, now()
    request.decision_reason = said or None
    audit.record(
        by, f"budget.request.{decision}", *request.scope, name=payer.name if payer else None,
        after={"amount": money.optional_text(granted), "lasting": request.lasting}, reason=said or None,
        on_behalf_of=request.person.username,
    )  # fmt: skip
    _notify(request, payer)
    if granted is not None and budget is not None:
        if request.lasting:
            budgets.set_budget(
                budget.scope_kind,  # type: ignore[arg-type]
                budget.scope_id,
                by=by,
                limit=_total(budget.limit_nano + granted),
                period=budget.period,
                timezone=budget.timezone,
            )
        else:
            credits.give(
                current.redis(), request.id, *request.scope, by=by, amount=money.text(granted),
                reason=said or f"Requested by {request.person.username}: {request.reason[:500]}",
            )  # fmt: skip
    return request


def _notify(request: BudgetRequest, payer: Payer | None) -> None:
    """Notify the requester of the decision, unless they made it themselves."""
    if request.decided_by == request.person.username:
        return
    name = payer.name if payer else "a deleted budget"
    if request.granted_nano is None:
        title = f"Budget increase for {name} denied"
    else:
        how = "per period" if request.lasting else "this period"
        title = f"{_with_currency(request.granted_nano)} more for {name}, {how}"
    text = f"Decided by {request.decided_by}."
    text = f"{request.decision_reason}\n{text}" if request.decision_reason else text
    notices.notify(request.person, f"budget.{request.status}", title, text, payer.path if payer else None)


def _deciders(payer: Payer) -> list[Person]:
    """The people to notify of a request: a team's owners if they can decide, otherwise admins."""
    found = list(db.session.scalars(select(Person).where(Person.role == "admin", Person.disabled.is_(False))))
    if payer.kind in ("key", "member") and payer.team_id is not None:
        team = db.session.get(teams.Team, payer.team_id)
        found = teams.owners_of(team) if team else found  # admins still see it in their list
    return found


def _must_be_pending(request: BudgetRequest) -> None:
    db.session.refresh(request, with_for_update={"of": BudgetRequest})
    if not request.is_pending:
        raise Conflict(f"This request is already {request.status}.")


def _total(nano: int) -> str:
    if nano > money.MAX_NANO:
        raise Invalid("The limit would be too large.", "amount")
    return money.text(nano)


def _words(text: str, missing: str) -> str:
    text = text.strip()
    if not text:
        raise Invalid(missing, "reason")
    if len(text) > LONGEST_TEXT:
        raise Invalid(f"Use at most {LONGEST_TEXT} characters.", "reason")
    return text


def _with_currency(nano: int) -> str:
    return f"{money.text(nano)} {current.config().portal.currency}"
