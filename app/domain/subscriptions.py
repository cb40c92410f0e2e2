"""Subscriptions: who can call which model, from the request to the end, with every step on a timeline.

A person has at most one live subscription (pending, active or suspended) to a model; a second request returns it.
Subscriptions to unrestricted models are active immediately; others stay pending until an admin decides or an approval rule
matches. A subscription that expires can be renewed. People are notified of every step that somebody else makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Index,
    Select,
    String,
    Text,
    and_,
    bindparam,
    case,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.ext.hybrid import Comparator, hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.sql import operators
from sqlalchemy.sql.operators import OperatorType

from app.clock import LATEST, now
from app.domain import approval_rules, audit, budgets, notices, teams
from app.domain.approval_rules import ApprovalRule
from app.domain.catalog import Model
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.person import Person
from app.domain.search import one_of
from app.domain.teams import Membership, Team
from app.extensions import Base, UtcDateTime, db
from app.runtime.ids import new_id

Status = Literal["pending", "active", "denied", "suspended", "cancelled", "expired"]
STATUSES: tuple[Status, ...] = get_args(Status)
LIVE: tuple[Status, ...] = ("pending", "active", "suspended")
LONGEST_TEXT = 2000
RENEWABLE = timedelta(days=14)  # how long before its expiry a renewal can be requested
# The kinds of warnings before a subscription expires, and how long before, the latest first.
WARNINGS = (
    ("subscription.expires_in_1_day", timedelta(days=1)),
    ("subscription.expires_in_7_days", timedelta(days=7)),
)

Decision = Literal["approve", "deny", "suspend", "resume"]
# decision -> the statuses in which it is allowed, the status it leads to
DECISIONS: dict[Decision, tuple[tuple[Status, ...], Status]] = {
    "approve": (("pending",), "active"),
    "deny": (("pending",), "denied"),
    "suspend": (("active",), "suspended"),
    "resume": (("suspended",), "active"),
}
Wait = Literal["request", "renewal"]  # what an admin can have to decide about


_NOW: ColumnElement[datetime] = bindparam(None, callable_=now, type_=UtcDateTime())  # of the moment when SQL is sent


class _StatusNow(Comparator[str]):
    """`Subscription.status` in SQL; its equality is written so that the column's index answers it."""

    def __clause_element__(self) -> ColumnElement[str]:
        return _status()

    def operate(self, op: OperatorType, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        if op is operators.eq:
            return _is_now([other[0]])
        if op is operators.in_op:
            return _is_now(list(other[0]))
        compared: ColumnElement[Any] = op(self.__clause_element__(), *other, **kwargs)
        return compared


def _status() -> ColumnElement[str]:
    """SQL's `status`."""
    return case((_has_ended(), "expired"), else_=Subscription.recorded_status)


def _is_now(statuses: Sequence[str]) -> ColumnElement[bool]:
    """The condition that a subscription's current status is one of these."""
    live, over = [one for one in statuses if one in LIVE], [one for one in statuses if one not in LIVE]
    kept = Subscription.recorded_status
    running = or_(Subscription.expires_at.is_(None), Subscription.expires_at > _NOW)
    ways = [and_(kept.in_(live), running)] if live else []
    ways += [kept.in_(over)] if over else []
    ways += [_has_ended()] if "expired" in over else []
    return or_(false(), *ways)


def _has_ended() -> ColumnElement[bool]:
    """SQL's `has_ended`."""
    return and_(Subscription.recorded_status.in_(LIVE), Subscription.expires_at <= _NOW)


class Subscription(Base):
    """One person's or team's access to one model. `model_name` remains after the model is deleted."""

    __tablename__ = "subscription"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    team_id: Mapped[str | None] = mapped_column(String(36), index=True)
    model_id: Mapped[str | None] = mapped_column(ForeignKey("model.id", ondelete="SET NULL"), index=True)
    model_name: Mapped[str] = mapped_column(String(200))
    recorded_status: Mapped[str] = mapped_column("status", String(16), index=True)  # see `status`
    justification: Mapped[str | None] = mapped_column(Text)
    decision_reason: Mapped[str | None] = mapped_column(Text)
    decided_by: Mapped[str | None] = mapped_column(String(64))
    decided_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    renewal_asked_at: Mapped[datetime | None]  # a renewal is requested; an admin's approval ends that
    renewal_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    person: Mapped[Person] = relationship(lazy="joined")  # the owner, or who requested it for a team
    team: Mapped[Team | None] = relationship(
        primaryjoin="foreign(Subscription.team_id) == Team.id", viewonly=True, lazy="joined"
    )
    model: Mapped[Model | None] = relationship(lazy="joined")
    timeline: Mapped[list[SubscriptionStep]] = relationship(
        order_by="(SubscriptionStep.at, SubscriptionStep.id)", cascade="all, delete-orphan", lazy="select"
    )

    @hybrid_property
    def status(self) -> str:
        """The current status: "expired" once its end has passed, even if the job has not recorded that yet."""
        return "expired" if self.has_ended else self.recorded_status

    @status.inplace.setter
    def _set_status(self, status: str) -> None:
        self.recorded_status = status

    @status.inplace.comparator
    @classmethod
    def _status_in_sql(cls) -> _StatusNow:
        return _StatusNow(cls.recorded_status)

    @property
    def has_ended(self) -> bool:
        """Whether its end has passed while it was live."""
        return self.recorded_status in LIVE and self.expires_at is not None and self.expires_at <= now()

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    @property
    def waits_for(self) -> Wait | None:
        """What an admin has to decide: "request", "renewal", or None."""
        if self.status == "pending":
            return "request"
        return "renewal" if self.renewal_asked_at is not None and self.is_live else None

    @property
    def asked_at(self) -> datetime:
        """When the pending request or renewal was made; otherwise when the subscription was requested."""
        if self.status == "pending":
            return self.updated_at  # a new restriction can make it pending long after the request
        return self.renewal_asked_at or self.created_at

    @property
    def is_renewable(self) -> bool:
        """Whether a renewal can be requested: it expires within `RENEWABLE`, and none is requested yet."""
        return (
            self.status == "active"
            and self.renewal_asked_at is None
            and self.expires_at is not None
            and now() < self.expires_at <= now() + RENEWABLE
        )


Index(
    "uq_subscription_live",
    Subscription.person_id,
    Subscription.model_id,
    func.coalesce(Subscription.team_id, ""),
    unique=True,
    sqlite_where=Subscription.recorded_status.in_(LIVE),
    postgresql_where=Subscription.recorded_status.in_(LIVE),
)


Index(
    "ix_subscription_waiting",
    Subscription.id,
    sqlite_where=text("status = 'pending' OR renewal_asked_at IS NOT NULL"),
    postgresql_where=text("status = 'pending' OR renewal_asked_at IS NOT NULL"),
)


class SubscriptionStep(Base):
    """One step of a subscription's timeline: who made it and why, and the new status or, if it stayed the same, what
    happened: "renewal-asked", "renewed" or "renewal-denied"."""

    __tablename__ = "subscription_step"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscription.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(default=now)
    status: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)


def visible_to(person: Person) -> Select[Subscription]:
    """A query of the subscriptions that a person can see, newest first: their own and their teams'; all for admins."""
    query = select(Subscription).order_by(Subscription.id.desc())
    if person.sees_everything:
        return query
    return query.where(shared_by(person))


def pays_for(person_id: str, team_id: str | None) -> ColumnElement[bool]:
    """The condition that a subscription pays for calls of a person's keys: the team's for a team's keys, the person's own
    for personal keys."""
    if team_id is not None:
        return Subscription.team_id == team_id
    return and_(Subscription.team_id.is_(None), Subscription.person_id == person_id)


def shared_by(person: Person) -> ColumnElement[bool]:
    """The condition that a subscription belongs to a person or to one of their teams."""
    joined = select(Membership.team_id).where(Membership.person_id == person.id)
    return or_(pays_for(person.id, None), Subscription.team_id.in_(joined))


def owned_by(person: Person, *, status: str | None = None) -> Select[Subscription]:
    """A query of a person's own subscriptions, newest first."""
    query = select(Subscription).where(pays_for(person.id, None)).order_by(Subscription.id.desc())
    return query.where(Subscription.status == status) if status else query


def of_team(team: Team, *, status: str | None = None) -> Select[Subscription]:
    """A query of a team's subscriptions, newest first."""
    query = select(Subscription).where(Subscription.team_id == team.id).order_by(Subscription.id.desc())
    return query.where(Subscription.status == status) if status else query


def get_visible(person: Person, id: str, *, change: bool = False) -> Subscription:
    """The subscription with this id if the person can see it. Raises `NotFound`.

    With `change` it raises `Forbidden` for a read-only admin and another person's subscription, and for a member of its
    team who neither owns the team nor requested it.
    """
    subscription = db.session.scalar(visible_to(person).where(Subscription.id == id))
    if subscription is None:
        raise NotFound("This subscription does not exist.")
    if change and subscription.person_id != person.id and not person.is_admin:
        if subscription.team_id is None:
            raise Forbidden("Changing other people's subscriptions needs the role admin.")
        if teams.role_in(person, subscription.team_id) != "owner":
            raise Forbidden("Changing a team's subscription needs the role owner in the team, or the role admin.")
    return subscription


def may_renew(person: Person, subscription: Subscription) -> bool:
    """Whether a person can request a renewal: who requested the subscription, and the owners of its team."""
    own_team = subscription.team_id is not None and teams.role_in(person, subscription.team_id) == "owner"
    return subscription.person_id == person.id or own_team


def live(person: Person, model: Model, team: Team | None = None) -> Subscription | None:
    """The pending, active or suspended subscription of a person, or of a team, to a model; None if there is none."""
    found = owned_by(person) if team is None else of_team(team)
    return db.session.scalar(found.where(Subscription.model_id == model.id, Subscription.status.in_(LIVE)).limit(1))


def _waits() -> ColumnElement[bool]:
    """`waits_for is not None` in SQL, exactly as in the index, which is used for no other spelling."""
    waits = or_(Subscription.recorded_status == literal_column("'pending'"), Subscription.renewal_asked_at.is_not(None))
    return and_(waits, or_(Subscription.expires_at.is_(None), Subscription.expires_at > _NOW))


def _asked_at() -> ColumnElement[datetime]:
    """SQL's `asked_at`."""
    return case(
        (Subscription.recorded_status == "pending", Subscription.updated_at),
        else_=func.coalesce(Subscription.renewal_asked_at, Subscription.created_at),
    )


def awaiting_decision() -> Select[Subscription]:
    """A query of the requests and renewals that need an admin's decision, oldest first."""
    return select(Subscription).where(_waits()).order_by(_asked_at(), Subscription.id)


def awaiting_decision_count() -> Select[int]:
    """A query of their number."""
    return select(func.count()).select_from(Subscription).where(_waits())


# The columns that lists can be sorted by.
ORDERS: dict[str, ColumnElement[Any]] = {
    "person": func.lower(Person.username),
    "model": func.lower(Subscription.model_name),
    "status": _status(),
    "asked": _asked_at(),
    "changed": Subscription.updated_at.expression,
    "ends": Subscription.expires_at.expression,
}


def approvals(*, status: str | None = None, wait: str | None = None, search: str | None = None) -> Select[Subscription]:
    """A query of the subscriptions that need or had an admin's decision: pending ones first, oldest first, then decided
    ones, latest first.

    Filtered by status, by what is pending (`wait`: "request", "renewal" or "any"), and by `search` in people, models and
    purposes.
    """
    query = select(Subscription).join(Person, Person.id == Subscription.person_id)
    query = query.where(or_(_waits(), Subscription.decided_at.is_not(None)))
    if status:
        query = query.where(Subscription.status == status)
    match wait:
        case "any":
            query = query.where(_waits())
        case "request":
            query = query.where(Subscription.status == "pending")
        case "renewal":
            query = query.where(Subscription.renewal_asked_at.is_not(None))
    if search:
        query = query.where(
            Person.username.icontains(search, autoescape=True)
            | Person.email.icontains(search, autoescape=True)
            | Subscription.model_name.icontains(search, autoescape=True)
            | Subscription.justification.icontains(search, autoescape=True)
        )
    waits = _waits()
    return query.order_by(
        case((waits, 0), else_=1),
        case((waits, _asked_at())),
        Subscription.decided_at.desc(),
        Subscription.id,
    )


def search(person: Person, *, search: str | None = None, status: str | None = None) -> Select[Subscription]:
    """A query of a person's own subscriptions, newest first, filtered by a part of the model's name and by status."""
    query = owned_by(person, status=status)
    return query.where(Subscription.model_name.icontains(search, autoescape=True)) if search else query


def shared_with(person: Person, *, search: str | None = None, status: str | None = None) -> Select[Subscription]:
    """A query of a person's own subscriptions and their teams', newest first, with the filters of `search`."""
    query = select(Subscription).where(shared_by(person)).order_by(Subscription.id.desc())
    if status:
        query = query.where(Subscription.status == status)
    return query.where(Subscription.model_name.icontains(search, autoescape=True)) if search else query


def may_change(person: Person, subscription: Subscription) -> bool:
    """Whether a person can end a subscription: its owner, who requested it for the team, owners of the team, and admins."""
    if subscription.person_id == person.id or person.is_admin:
        return True
    return subscription.team_id is not None and teams.role_in(person, subscription.team_id) == "owner"


def counts_of_teams(ids: Iterable[str]) -> dict[str, int]:
    """The number of models that each of these teams can call now, by team id."""
    query = select(Subscription.team_id, func.count()).where(
        Subscription.team_id.in_(set(ids)), Subscription.status == "active"
    )
    return {str(id): count for id, count in db.session.execute(query.group_by(Subscription.team_id)).all()}


def former(subscription: Subscription) -> Select[Subscription]:
    """A query of the same person's other subscriptions to the same model, newest first."""
    return owned_by(subscription.person).where(
        Subscription.model_name == subscription.model_name, Subscription.id != subscription.id
    )


def live_count(model: Model) -> int:
    """The number of live subscriptions to a model."""
    query = select(func.count()).where(Subscription.model_id == model.id, Subscription.status.in_(LIVE))
    return db.session.scalar(query) or 0


def request(
    person: Person, model: Model, *, by: Person, justification: str | None = None, team: Team | None = None
) -> tuple[Subscription, bool]:
    """Request access for a person, or for a team that they are in; return the subscription and whether it is new.

    Raises `Invalid` for a model that is not available, or a team that the person is not in.
    """
    if team is not None and teams.role_in(person, team.id) is None:
        raise Invalid("Only members can request access for a team.", "team_id")
    existing = live(person, model, team)
    if existing is not None:
        return existing, False
    former = _due().where(pays_for(person.id, team.id if team else None), Subscription.model_id == model.id)
    for ended in db.session.scalars(former).all():
        _expire(ended)  # the job has not recorded it yet, and only one can be live
        db.session.flush()
    if model.status not in ("active", "deprecated"):
        raise Invalid(f"{model.name} is not available.", "model")
    justification = _words(justification, "justification")
    subscription = Subscription(
        id=new_id(),
        person_id=person.id,
        person=person,
        team_id=team.id if team else None,
        model=model,
        model_name=model.name,
        status="pending" if model.restricted else "active",
        justification=justification,
    )
    db.session.add(subscription)
    db.session.flush()
    _step(subscription, by, justification)
    after = {"status": subscription.status} | ({} if team is None else {"team": team.name})
    audit.record(by, "subscription.request", "subscription", subscription.id, name=model.name, after=after)
    _publish(subscription)
    if subscription.status == "pending":
        rule = approval_rules.fitting(person, model)
        if rule is None:
            _notify_admins(
                subscription,
                "subscription.request",
                f"{person.username} requests access to {model.name}",
                justification,
            )
        else:
            _approve_by(subscription, rule)
    return subscription, True


def request_again(
    subscription: Subscription, *, by: Person, justification: str | None = None
) -> tuple[Subscription, bool]:
    """Request access again after a denial or an end, as `request` does. Raises `Conflict` while this subscription is live,
    or if its model was deleted."""
    if subscription.is_live:
        raise Conflict(f"This subscription is {subscription.status}. You can't request it again.")
    if subscription.model is None:
        raise Conflict(f"{subscription.model_name} has been removed.")
    return request(subscription.person, subscription.model, by=by, justification=justification, team=subscription.team)


def ask_renewal(subscription: Subscription, *, by: Person, reason: str | None) -> Subscription:
    """Request a renewal.

    Raises `Forbidden` if `by` can't, `Conflict` if it does not expire within `RENEWABLE` or a renewal is already requested,
    `Invalid` without a reason.
    """
    if not may_renew(by, subscription):
        raise Forbidden("Only the person who requested this, or an owner of the team, can request a renewal.")
    db.session.refresh(subscription, ["recorded_status", "renewal_asked_at"], with_for_update={"of": Subscription})
    if subscription.renewal_asked_at is not None:
        raise Conflict("A renewal is already requested. An administrator will decide.")
    if not subscription.is_renewable:
        raise Conflict(f"Only an active subscription that expires within {RENEWABLE.days} days can be renewed.")
    reason = _words(reason, "reason")
    if reason is None:
        raise Invalid("Enter a reason why you need it longer.", "reason")
    subscription.renewal_asked_at, subscription.renewal_reason = now(), reason
    subscription.updated_at = now()
    _step(subscription, by, reason, "renewal-asked")
    audit.record(
        by, "subscription.renewal_request", "subscription", subscription.id, name=subscription.model_name, reason=reason,
        on_behalf_of=_on_behalf_of(subscription, by),
    )  # fmt: skip
    asks = f"{by.username} requests a renewal of {subscription.model_name}"
    _notify_admins(subscription, "subscription.renewal_request", asks, reason)
    return subscription


def decide(
    subscription: Subscription,
    decision: str,
    *,
    by: Person,
    reason: str | None = None,
    expires_at: datetime | None = None,
    budget: Mapping[str, Any] | None = None,
) -> Subscription:
    """Record an admin's decision; `budget` has limit, period and timezone, as arguments of `budgets.set_budget`.

    "approve" and "deny" answer a pending request, or a renewal, which leaves the status as it is. An approved renewal
    expires at `expires_at`, or never if that is None; a denied one keeps its expiry.

    Raises `Invalid` for an unknown decision or a denial without a reason, `Conflict` if the status does not allow it.
    """
    if decision not in DECISIONS:
        raise Invalid(f"Choose one of {', '.join(DECISIONS)}.", "decision")
    allowed, status = DECISIONS[decision]
    reason = _words(reason, "reason")
    if decision == "deny" and not reason:
        raise Invalid("Enter a reason. It is shown to the person.", "reason")
    if expires_at is not None and not now() < expires_at < LATEST:
        raise Invalid("Enter a time in the future, before the year 3000.", "expires_at")
    # Lock it: of two concurrent admins the second sees the first one's decision.
    db.session.refresh(
        subscription, ["recorded_status", "renewal_asked_at", "expires_at"], with_for_update={"of": Subscription}
    )
    renews = decision in ("approve", "deny") and subscription.waits_for == "renewal"
    if not renews and subscription.status not in allowed:
        raise Conflict(
            f"This subscription is {subscription.status}; {decision} needs one that is {' or '.join(allowed)}."
        )
    if renews:
        _answer_renewal(subscription, decision, by, reason, expires_at)
    else:
        subscription.decided_by, subscription.decided_at, subscription.decision_reason = by.username, now(), reason
        if expires_at is not None:
            subscription.expires_at = expires_at
        _move(subscription, status, by, f"subscription.{decision}", reason)
        title, text = _DECIDED[decision]
        until = (
            f" until {subscription.expires_at:%Y-%m-%d %H:%M} UTC"
            if subscription.expires_at and status == "active"
            else ""
        )
        _notify(
            subscription,
            f"subscription.{decision}",
            title.format(subscription.model_name),
            reason,
            text.format(until=until),
        )
    if budget is not None:
        budgets.set_budget("subscription", subscription.id, by=by, **budget)
    return subscription


# The notification of a decision: its title and text.
_DECIDED = {
    "approve": ("You have access to {} now", "Your keys can call it{until}."),
    "deny": ("Your request for {} was denied", "You can request access again on its page."),
    "suspend": ("Your access to {} is suspended", "Calls are refused until an administrator resumes it."),
    "resume": ("Your access to {} is resumed", "Your keys can call it again{until}."),
}


def _answer_renewal(
    subscription: Subscription, decision: str, by: Person, reason: str | None, expires_at: datetime | None
) -> None:
    old = subscription.expires_at
    if decision == "approve" and expires_at is not None and old is not None and expires_at <= old:
        raise Invalid(f"Enter a time later than the current expiry, {old:%Y-%m-%d %H:%M} UTC.", "expires_at")
    subscription.decided_by, subscription.decided_at, subscription.decision_reason = by.username, now(), reason
    subscription.renewal_asked_at = subscription.renewal_reason = None
    subscription.updated_at = now()
    if decision == "approve":
        subscription.expires_at = expires_at
    _step(subscription, by, reason, "renewed" if decision == "approve" else "renewal-denied")
    audit.record(
        by,
        "subscription.renew" if decision == "approve" else "subscription.deny_renewal",
        "subscription",
        subscription.id,
        name=subscription.model_name,
        before={"expires_at": old.isoformat() if old else None},
        after={"expires_at": subscription.expires_at.isoformat() if subscription.expires_at else None},
        reason=reason,
        on_behalf_of=_on_behalf_of(subscription, by),
    )
    _publish(subscription)
    ends = (
        f"It expires at {subscription.expires_at:%Y-%m-%d %H:%M} UTC."
        if subscription.expires_at
        else "It no longer expires."
    )
    if decision == "approve":
        _notify(
            subscription, "subscription.renew", f"Your access to {subscription.model_name} is renewed", reason, ends
        )
    else:
        title = f"Your access to {subscription.model_name} is not renewed"
        _notify(subscription, "subscription.deny_renewal", title, reason, ends)


def _approve_by(subscription: Subscription, rule: ApprovalRule) -> None:
    """Approve a request by a rule."""
    reason = f"Approved by the rule “{rule.name}”."
    subscription.decided_by, subscription.decided_at, subscription.decision_reason = audit.SYSTEM, now(), reason
    subscription.expires_at = rule.end(now())
    _move(subscription, "active", None, "subscription.approve", reason)
    if rule.budget is not None:
        budgets.set_budget("subscription", subscription.id, by=None, **rule.budget)
    title, text = _DECIDED["approve"]
    until = f" until {subscription.expires_at:%Y-%m-%d %H:%M} UTC" if subscription.expires_at else ""
    _notify(
        subscription, "subscription.approve", title.format(subscription.model_name), reason, text.format(until=until)
    )


def cancel(subscription: Subscription, *, by: Person | None, reason: str | None = None) -> Subscription:
    """End a live subscription, or withdraw a pending one. Raises `Conflict` if it has already ended."""
    if not subscription.is_live:
        raise Conflict(f"This subscription is already {subscription.status}.")
    _move(subscription, "cancelled", by, "subscription.cancel", reason)
    if by is None or by.id != subscription.person_id:
        title = f"Your subscription to {subscription.model_name} is cancelled"
        _notify(subscription, "subscription.cancel", title, reason, "Calls are refused from now on.")
    return subscription


def cancel_all_of(model: Model, *, by: Person | None, reason: str) -> None:
    """End all live subscriptions to a model."""
    for found in db.session.scalars(
        select(Subscription).where(Subscription.model_id == model.id, Subscription.status.in_(LIVE))
    ):
        cancel(found, by=by, reason=reason)


def active_count(model: Model) -> int:
    """The number of active subscriptions to a model: a restriction would make these pending."""
    query = select(func.count()).where(Subscription.model_id == model.id, Subscription.status == "active")
    return db.session.scalar(query) or 0


def pend_all_of(model: Model, *, by: Person | None) -> int:
    """Make all active subscriptions to a newly restricted model pending, so that an admin decides about each; return how
    many there were."""
    reason = f"{model.name} is now restricted. An administrator decides about each subscription."
    found = _locked(model, "active")
    for one in found:
        one.decided_by = one.decided_at = one.decision_reason = None
        _move(one, "pending", by, "subscription.restrict", reason)
        notices.notify(
            one.person,
            "subscription.restrict",
            f"Your access to {model.name} needs approval again",
            f"{model.name} is now restricted. Calls are refused until an administrator decides.",
            f"/models/{model.name}",
        )
    return len(found)


def admit_all_of(model: Model, *, by: Person | None) -> int:
    """Activate all pending subscriptions to a model that is no longer restricted; return how many there were."""
    reason = f"{model.name} no longer needs approval."
    found = _locked(model, "pending")
    for one in found:
        one.decided_by, one.decided_at, one.decision_reason = by.username if by else audit.SYSTEM, now(), reason
        _move(one, "active", by, "subscription.approve", reason)
        title, text = _DECIDED["approve"]
        _notify(one, "subscription.approve", title.format(one.model_name), reason, text.format(until=""))
    return len(found)


def _locked(model: Model, status: Status) -> Sequence[Subscription]:
    query = select(Subscription).where(Subscription.model_id == model.id, Subscription.status == status)
    return db.session.scalars(query.with_for_update(of=Subscription)).all()


def expire_due(limit: int = 500) -> int:
    """Record subscriptions as expired and notify their owners; return how many there were. Runs every minute.

    The gateway and all readers already treat them as expired.
    """
    due = db.session.scalars(_due().limit(limit)).all()
    for found in due:
        _expire(found)
    return len(due)


def _due() -> Select[Subscription]:
    """Subscriptions whose end has passed but is not recorded."""
    return select(Subscription).where(_has_ended())


def _expire(subscription: Subscription) -> None:
    _move(subscription, "expired", None, "subscription.expire", None)
    title = f"Your access to {subscription.model_name} has expired"
    _notify(
        subscription, "subscription.expire", title, None, "Calls are refused. You can request it again on its page."
    )


def warn_of_ends(limit: int = 500) -> int:
    """Send warnings a week and a day before subscriptions expire, each once; return how many were sent. Runs every minute."""
    sent = 0
    nearer = now()
    for kind, before in WARNINGS:
        already = select(notices.Notice.id).where(
            notices.Notice.person_id == Subscription.person_id,
            notices.Notice.kind == kind,
            notices.Notice.href == literal(_href("")) + Subscription.id,
            notices.Notice.at > now() - before,  # a warning about an earlier expiry is older
        )
        due = db.session.scalars(
            select(Subscription)
            .where(
                Subscription.status == "active",
                Subscription.expires_at > nearer,
                Subscription.expires_at <= now() + before,
                ~already.exists(),
            )
            .limit(limit)
        ).all()
        for found in due:
            further = "Your renewal request is pending." if found.renewal_asked_at else (
                "You can request a renewal on its page."
            )  # fmt: skip
            title = f"Your access to {found.model_name} expires on {found.expires_at:%Y-%m-%d}"
            _notify(found, kind, title, None, f"It expires at {found.expires_at:%Y-%m-%d %H:%M} UTC. {further}")
        sent += len(due)
        nearer = now() + before
    return sent


def usable(
    person_ids: Sequence[str], team_ids: Sequence[str] = ()
) -> Select[str, str | None, str, str, datetime | None]:
    """A query of what can be called now by these people and teams: person id, team id, model name, subscription id and
    expiry."""
    theirs = and_(Subscription.team_id.is_(None), one_of(Subscription.person_id, person_ids))
    return (
        select(Subscription.person_id, Subscription.team_id, Model.name, Subscription.id, Subscription.expires_at)
        .join(Model, Model.id == Subscription.model_id)
        .where(
            or_(theirs, one_of(Subscription.team_id, team_ids)) if team_ids else theirs,
            Subscription.status == "active",
        )
        .order_by(Subscription.id.desc())  # of two subscriptions to one model the older pays
    )


def paid_models(person_id: str, team_id: str | None = None) -> list[Model]:
    """The models that a person's own keys, or a team's, can call now, by name."""
    paid = select(Subscription.model_id).where(pays_for(person_id, team_id), Subscription.status == "active")
    query = select(Model).where(Model.id.in_(paid), Model.status != "disabled").order_by(Model.name)
    return list(db.session.scalars(query))


def hand_over(person: Person, *, team: Team | None = None) -> None:
    """Transfer the subscriptions that a person requested for `team`, or for any team, to an owner of the team."""
    asked = select(Subscription).where(Subscription.person_id == person.id, Subscription.team_id.is_not(None))
    if team is not None:
        asked = asked.where(Subscription.team_id == team.id)
    for found in db.session.scalars(asked):
        heir = next((one for one in teams.owners_of(found.team) if one.id != person.id), None) if found.team else None
        if heir is not None:
            found.person_id = heir.id
    db.session.flush()


def forget(person: Person) -> None:
    """Delete the subscriptions of a person who is being deleted; those that they requested for a team go to another owner
    of it, if there is one."""
    hand_over(person)
    for found in db.session.scalars(select(Subscription).where(Subscription.person_id == person.id)):
        budgets.forget("subscription", found.id)
        db.session.delete(found)


def _move(subscription: Subscription, status: Status, by: Person | None, action: str, reason: str | None) -> None:
    before = {"status": subscription.recorded_status}
    subscription.status = status
    subscription.updated_at = now()
    if status not in ("active", "suspended"):
        subscription.renewal_asked_at = subscription.renewal_reason = None
    _step(subscription, by, reason)
    audit.record(
        by,
        action,
        "subscription",
        subscription.id,
        name=subscription.model_name,
        before=before,
        after={"status": status},
        reason=reason,
        on_behalf_of=_on_behalf_of(subscription, by),
    )
    _publish(subscription)


def _publish(subscription: Subscription) -> None:
    """Mark the person's or the team's keys for publication to the gateway."""
    if subscription.team_id is None:
        mark_for_publication("person", subscription.person_id)
    else:
        mark_for_publication("team", subscription.team_id)


def _step(subscription: Subscription, by: Person | None, reason: str | None, happened: str | None = None) -> None:
    actor = by.username if by else audit.SYSTEM
    db.session.add(
        SubscriptionStep(
            subscription_id=subscription.id, status=happened or subscription.status, actor=actor, reason=reason
        )
    )


def _on_behalf_of(subscription: Subscription, by: Person | None) -> str | None:
    return subscription.person.username if by is None or by.id != subscription.person_id else None


def _words(text: str | None, field: str) -> str | None:
    """The text without surrounding whitespace; None if it is empty. Raises `Invalid` if it is too long."""
    text = (text or "").strip() or None
    if text and len(text) > LONGEST_TEXT:
        raise Invalid(f"Use at most {LONGEST_TEXT} characters.", field)
    return text


def _href(id: str) -> str:
    """The path of its page in the portal."""
    return f"/subscriptions/{id}"


def _notify(subscription: Subscription, kind: str, title: str, reason: str | None, text: str) -> None:
    """Notify the person: the reason first, then `text`."""
    notices.notify(subscription.person, kind, title, f"{reason}\n{text}" if reason else text, _href(subscription.id))


def _notify_admins(subscription: Subscription, kind: str, title: str, reason: str | None) -> None:
    """Notify all admins except the one who requests."""
    admins = select(Person).where(
        Person.role == "admin", Person.disabled.is_(False), Person.id != subscription.person_id
    )
    for admin in db.session.scalars(admins):
        notices.notify(
            admin, kind, title, reason or "No purpose given.", f"/admin/subscriptions/{subscription.id}/decision"
        )
