"""Subscriptions: who may call which model, from the request to its end, with every step on a timeline.

A person has at most one live subscription (pending, active or suspended) to a model; asking again answers it.
Models that are not restricted are active at once; the others wait for an admin's decision unless an approval rule
fits. One that is going to end may be renewed. Whoever did not do it themselves is told of every step.
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
RENEWABLE = timedelta(days=14)  # before its end a person may ask for a later one
# What a person is told of an end to come, and how long before it, the nearest first.
WARNINGS = (
    ("subscription.expires_in_1_day", timedelta(days=1)),
    ("subscription.expires_in_7_days", timedelta(days=7)),
)

Decision = Literal["approve", "deny", "suspend", "resume"]
# decision -> the statuses it may be made in, the status it leads to
DECISIONS: dict[Decision, tuple[tuple[Status, ...], Status]] = {
    "approve": (("pending",), "active"),
    "deny": (("pending",), "denied"),
    "suspend": (("active",), "suspended"),
    "resume": (("suspended",), "active"),
}
Wait = Literal["request", "renewal"]  # what an admin may have to decide about


_NOW: ColumnElement[datetime] = bindparam(None, callable_=now, type_=UtcDateTime())  # of the moment when SQL is sent


class _StatusNow(Comparator[str]):
    """`Subscription.status` in SQL, equality in words that the column's index answers."""

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
    """Whether a subscription's status is one of these at the moment."""
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
    """One person's access to one model. `model_name` stays when the model goes."""

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
    renewal_asked_at: Mapped[datetime | None]  # the person asks for a later end; an admin's approval answers it
    renewal_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    person: Mapped[Person] = relationship(lazy="joined")  # whose it is, or who asked for a team's
    team: Mapped[Team | None] = relationship(
        primaryjoin="foreign(Subscription.team_id) == Team.id", viewonly=True, lazy="joined"
    )
    model: Mapped[Model | None] = relationship(lazy="joined")
    timeline: Mapped[list[SubscriptionStep]] = relationship(
        order_by="(SubscriptionStep.at, SubscriptionStep.id)", cascade="all, delete-orphan", lazy="select"
    )

    @hybrid_property
    def status(self) -> str:
        """What it is at this moment: one whose end has come is expired, whether or not the job has recorded that."""
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
        """Whether its end has come and nothing else has ended it."""
        return self.recorded_status in LIVE and self.expires_at is not None and self.expires_at <= now()

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    @property
    def waits_for(self) -> Wait | None:
        """What an admin has to decide about it."""
        if self.status == "pending":
            return "request"
        return "renewal" if self.renewal_asked_at is not None and self.is_live else None

    @property
    def asked_at(self) -> datetime:
        """When what waits was asked for, or else when it was first asked for."""
        if self.status == "pending":
            return self.updated_at  # a restriction may have turned it pending long after the request
        return self.renewal_asked_at or self.created_at

    @property
    def is_renewable(self) -> bool:
        """Whether its end is near enough to ask for a later one, and that has not been asked."""
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
    """One step of a subscription's timeline: who made it and why, and the status it led to or, where that stayed,
    what happened: "renewal-asked", "renewed" or "renewal-denied"."""

    __tablename__ = "subscription_step"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscription.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(default=now)
    status: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)


def visible_to(person: Person) -> Select[Subscription]:
    """The subscriptions this person can see, newest first: their own and those of their teams; everybody's for
    admins."""
    query = select(Subscription).order_by(Subscription.id.desc())
    if person.sees_everything:
        return query
    return query.where(shared_by(person))


def pays_for(person_id: str, team_id: str | None) -> ColumnElement[bool]:
    """The condition that a subscription pays for the calls of somebody's keys: of a team's keys the team's, of personal
    keys the person's own."""
    if team_id is not None:
        return Subscription.team_id == team_id
    return and_(Subscription.team_id.is_(None), Subscription.person_id == person_id)


def shared_by(person: Person) -> ColumnElement[bool]:
    """The condition that a subscription is a person's own or one of their teams'."""
    joined = select(Membership.team_id).where(Membership.person_id == person.id)
    return or_(pays_for(person.id, None), Subscription.team_id.in_(joined))


def owned_by(person: Person, *, status: str | None = None) -> Select[Subscription]:
    """A person's own subscriptions, newest first."""
    query = select(Subscription).where(pays_for(person.id, None)).order_by(Subscription.id.desc())
    return query.where(Subscription.status == status) if status else query


def of_team(team: Team, *, status: str | None = None) -> Select[Subscription]:
    """A team's subscriptions, newest first."""
    query = select(Subscription).where(Subscription.team_id == team.id).order_by(Subscription.id.desc())
    return query.where(Subscription.status == status) if status else query


def get_visible(person: Person, id: str, *, change: bool = False) -> Subscription:
    """The subscription of that id among those reachable; raises `NotFound`, or `Forbidden` when somebody may not
    change it: a read-only admin another person's, a member their team's unless they own it or asked for it."""
    subscription = db.session.scalar(visible_to(person).where(Subscription.id == id))
    if subscription is None:
        raise NotFound("There is no such subscription.")
    if change and subscription.person_id != person.id and not person.is_admin:
        if subscription.team_id is None:
            raise Forbidden("Changing other people's subscriptions needs the role admin.")
        if teams.role_in(person, subscription.team_id) != "owner":
            raise Forbidden("Changing a team's subscription needs the team's role owner, or the role admin.")
    return subscription


def may_renew(person: Person, subscription: Subscription) -> bool:
    """Whether this person may ask for a later end: who asked for it, and the owners of its team."""
    own_team = subscription.team_id is not None and teams.role_in(person, subscription.team_id) == "owner"
    return subscription.person_id == person.id or own_team


def live(person: Person, model: Model, team: Team | None = None) -> Subscription | None:
    """The pending, active or suspended subscription of a person, or of a team, to a model."""
    found = owned_by(person) if team is None else of_team(team)
    return db.session.scalar(found.where(Subscription.model_id == model.id, Subscription.status.in_(LIVE)).limit(1))


def _waits() -> ColumnElement[bool]:
    """SQL's `waits_for is not None`, in the words of the index, which is used for no others."""
    waits = or_(Subscription.recorded_status == literal_column("'pending'"), Subscription.renewal_asked_at.is_not(None))
    return and_(waits, or_(Subscription.expires_at.is_(None), Subscription.expires_at > _NOW))


def _asked_at() -> ColumnElement[datetime]:
    """SQL's `asked_at`."""
    return case(
        (Subscription.recorded_status == "pending", Subscription.updated_at),
        else_=func.coalesce(Subscription.renewal_asked_at, Subscription.created_at),
    )


def awaiting_decision() -> Select[Subscription]:
    """What waits for an admin's decision, requests and renewals, the longest first."""
    return select(Subscription).where(_waits()).order_by(_asked_at(), Subscription.id)


def awaiting_decision_count() -> Select[int]:
    """How many of them there are."""
    return select(func.count()).select_from(Subscription).where(_waits())


# What lists may be sorted by.
ORDERS: dict[str, ColumnElement[Any]] = {
    "person": func.lower(Person.username),
    "model": func.lower(Subscription.model_name),
    "status": _status(),
    "asked": _asked_at(),
    "changed": Subscription.updated_at.expression,
    "ends": Subscription.expires_at.expression,
}


def approvals(*, status: str | None = None, wait: str | None = None, search: str | None = None) -> Select[Subscription]:
    """What needs or had an admin's decision: what waits first, the longest waiting before others, then what was
    decided, the latest first. Narrowed to a status, to requests or renewals that wait ("any": both), and to persons,
    models and purposes that contain `search`."""
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
    """A person's own subscriptions, newest first, narrowed to a part of the model's name and to a status."""
    query = owned_by(person, status=status)
    return query.where(Subscription.model_name.icontains(search, autoescape=True)) if search else query


def shared_with(person: Person, *, search: str | None = None, status: str | None = None) -> Select[Subscription]:
    """A person's own subscriptions and those of their teams, newest first, narrowed as `search` does."""
    query = select(Subscription).where(shared_by(person)).order_by(Subscription.id.desc())
    if status:
        query = query.where(Subscription.status == status)
    return query.where(Subscription.model_name.icontains(search, autoescape=True)) if search else query


def may_change(person: Person, subscription: Subscription) -> bool:
    """Whether a person may end a subscription: whose it is, who asked for a team's or owns the team, and admins."""
    if subscription.person_id == person.id or person.is_admin:
        return True
    return subscription.team_id is not None and teams.role_in(person, subscription.team_id) == "owner"


def counts_of_teams(ids: Iterable[str]) -> dict[str, int]:
    """How many models these teams may call now, by the team's id."""
    query = select(Subscription.team_id, func.count()).where(
        Subscription.team_id.in_(set(ids)), Subscription.status == "active"
    )
    return {str(id): count for id, count in db.session.execute(query.group_by(Subscription.team_id)).all()}


def former(subscription: Subscription) -> Select[Subscription]:
    """The same person's other subscriptions to the same model, newest first."""
    return owned_by(subscription.person).where(
        Subscription.model_name == subscription.model_name, Subscription.id != subscription.id
    )


def live_count(model: Model) -> int:
    """How many live subscriptions there are to a model."""
    query = select(func.count()).where(Subscription.model_id == model.id, Subscription.status.in_(LIVE))
    return db.session.scalar(query) or 0


def request(
    person: Person, model: Model, *, by: Person, justification: str | None = None, team: Team | None = None
) -> tuple[Subscription, bool]:
    """Asks for access, for a person or for a team that they are in: the subscription, and whether it is new.

    Raises `Invalid` for a model not on offer, or a team that the person is not in.
    """
    if team is not None and teams.role_in(person, team.id) is None:
        raise Invalid("Only members can ask for a team.", "team_id")
    existing = live(person, model, team)
    if existing is not None:
        return existing, False
    former = _due().where(pays_for(person.id, team.id if team else None), Subscription.model_id == model.id)
    for ended in db.session.scalars(former).all():
        _expire(ended)  # the job has not come to it yet, and no more than one is kept as live
        db.session.flush()
    if model.status not in ("active", "deprecated"):
        raise Invalid(f"{model.name} is not on offer.", "model")
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
                subscription, "subscription.request", f"{person.username} asks for {model.name}", justification
            )
        else:
            _approve_by(subscription, rule)
    return subscription, True


def request_again(
    subscription: Subscription, *, by: Person, justification: str | None = None
) -> tuple[Subscription, bool]:
    """Asks anew after a denial or an end, as `request` does. Raises `Conflict` while this one is live, or when its
    model is gone."""
    if subscription.is_live:
        raise Conflict(f"This subscription is {subscription.status}; there is nothing to ask for again.")
    if subscription.model is None:
        raise Conflict(f"{subscription.model_name} has been removed.")
    return request(subscription.person, subscription.model, by=by, justification=justification, team=subscription.team)


def ask_renewal(subscription: Subscription, *, by: Person, reason: str | None) -> Subscription:
    """Asks for a later end. Raises `Forbidden` for who may not, `Conflict` when it has no end within `RENEWABLE`, or
    when that was asked already, `Invalid` without a reason."""
    if not may_renew(by, subscription):
        raise Forbidden("Only the person themselves, or an owner of the team, can ask for this.")
    db.session.refresh(subscription, ["recorded_status", "renewal_asked_at"], with_for_update={"of": Subscription})
    if subscription.renewal_asked_at is not None:
        raise Conflict("A renewal has been asked for already; an administrator will decide.")
    if not subscription.is_renewable:
        raise Conflict(f"Only an active subscription that ends within {RENEWABLE.days} days can be renewed.")
    reason = _words(reason, "reason")
    if reason is None:
        raise Invalid("Say in a sentence why you need it longer.", "reason")
    subscription.renewal_asked_at, subscription.renewal_reason = now(), reason
    subscription.updated_at = now()
    _step(subscription, by, reason, "renewal-asked")
    audit.record(
        by, "subscription.renewal_request", "subscription", subscription.id, name=subscription.model_name, reason=reason,
        on_behalf_of=_on_behalf_of(subscription, by),
    )  # fmt: skip
    asks = f"{by.username} asks for {subscription.model_name} to be renewed"
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
    """An admin's decision; `budget` bears limit, period and timezone as `budgets.set_budget` takes them.

    Approve and deny answer what waits: a request, or a renewal, which leaves the status as it is. An approved renewal
    ends at `expires_at`, without one never; a denied one when it would have ended anyway.

    Raises `Invalid` for an unknown decision or a denial without reason, `Conflict` when the subscription's status
    does not allow it.
    """
    if decision not in DECISIONS:
        raise Invalid(f"Choose one of {', '.join(DECISIONS)}.", "decision")
    allowed, status = DECISIONS[decision]
    reason = _words(reason, "reason")
    if decision == "deny" and not reason:
        raise Invalid("Give a reason; the person will read it.", "reason")
    if expires_at is not None and not now() < expires_at < LATEST:
        raise Invalid("Give an instant in the future, before the year 3000.", "expires_at")
    # Two admins at one instant: the second sees what the first did.
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


# What the person is told of a decision: the title, and how to go on.
_DECIDED = {
    "approve": ("You may use {} now", "Your keys may call it{until}."),
    "deny": ("Your request for {} was denied", "You may ask for a review on its page."),
    "suspend": ("Your access to {} is suspended", "Calls are refused until an administrator resumes it."),
    "resume": ("Your access to {} is resumed", "Your keys may call it again{until}."),
}


def _answer_renewal(
    subscription: Subscription, decision: str, by: Person, reason: str | None, expires_at: datetime | None
) -> None:
    old = subscription.expires_at
    if decision == "approve" and expires_at is not None and old is not None and expires_at <= old:
        raise Invalid(f"Give an end later than the present one, {old:%Y-%m-%d %H:%M} UTC.", "expires_at")
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
        f"It ends at {subscription.expires_at:%Y-%m-%d %H:%M} UTC."
        if subscription.expires_at
        else "It has no end any more."
    )
    if decision == "approve":
        _notify(
            subscription, "subscription.renew", f"Your access to {subscription.model_name} is renewed", reason, ends
        )
    else:
        title = f"Your access to {subscription.model_name} is not renewed"
        _notify(subscription, "subscription.deny_renewal", title, reason, ends)


def _approve_by(subscription: Subscription, rule: ApprovalRule) -> None:
    """The approval that a rule makes at once."""
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
    """Ends a live subscription, or withdraws one that is pending; raises `Conflict` when it has ended already."""
    if not subscription.is_live:
        raise Conflict(f"This subscription is {subscription.status} already.")
    _move(subscription, "cancelled", by, "subscription.cancel", reason)
    if by is None or by.id != subscription.person_id:
        title = f"Your subscription to {subscription.model_name} is cancelled"
        _notify(subscription, "subscription.cancel", title, reason, "Calls are refused from now on.")
    return subscription


def cancel_all_of(model: Model, *, by: Person | None, reason: str) -> None:
    """Ends every live subscription to a model."""
    for found in db.session.scalars(
        select(Subscription).where(Subscription.model_id == model.id, Subscription.status.in_(LIVE))
    ):
        cancel(found, by=by, reason=reason)


def active_count(model: Model) -> int:
    """How many active subscriptions there are to a model: those that a restriction would turn pending."""
    query = select(func.count()).where(Subscription.model_id == model.id, Subscription.status == "active")
    return db.session.scalar(query) or 0


def pend_all_of(model: Model, *, by: Person | None) -> int:
    """Turns every active subscription to a model that has become restricted pending: an admin decides about each
    anew. How many there were."""
    reason = f"{model.name} has become restricted; an administrator decides about each subscription."
    found = _locked(model, "active")
    for one in found:
        one.decided_by = one.decided_at = one.decision_reason = None
        _move(one, "pending", by, "subscription.restrict", reason)
        notices.notify(
            one.person,
            "subscription.restrict",
            f"Your access to {model.name} waits for approval again",
            f"{model.name} has become restricted. Calls are refused until an administrator has decided.",
            f"/models/{model.name}",
        )
    return len(found)


def admit_all_of(model: Model, *, by: Person | None) -> int:
    """Turns every subscription that waits for a model that has been opened active: there is nothing to decide any
    more. How many there were."""
    reason = f"{model.name} needs no approval any more."
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
    """Records the end of the subscriptions whose time is over; how many there were. The gateway and every reader have
    followed it at the moment; this tells the people. Runs each minute."""
    due = db.session.scalars(_due().limit(limit)).all()
    for found in due:
        _expire(found)
    return len(due)


def _due() -> Select[Subscription]:
    """Those whose end has come and is not recorded."""
    return select(Subscription).where(_has_ended())


def _expire(subscription: Subscription) -> None:
    _move(subscription, "expired", None, "subscription.expire", None)
    title = f"Your access to {subscription.model_name} has ended"
    _notify(
        subscription, "subscription.expire", title, None, "Calls are refused. You may ask for it again on its page."
    )


def warn_of_ends(limit: int = 500) -> int:
    """Tells people of ends to come, once each a week and a day before; how many were told. Runs each minute."""
    told = 0
    nearer = now()
    for kind, before in WARNINGS:
        already = select(notices.Notice.id).where(
            notices.Notice.person_id == Subscription.person_id,
            notices.Notice.kind == kind,
            notices.Notice.href == literal(_href("")) + Subscription.id,
            notices.Notice.at > now() - before,  # one of a former end is older
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
            further = "Your request for renewal waits for an administrator." if found.renewal_asked_at else (
                "You may ask for renewal on its page."
            )  # fmt: skip
            title = f"Your access to {found.model_name} ends on {found.expires_at:%Y-%m-%d}"
            _notify(found, kind, title, None, f"It ends at {found.expires_at:%Y-%m-%d %H:%M} UTC. {further}")
        told += len(due)
        nearer = now() + before
    return told


def usable(
    person_ids: Sequence[str], team_ids: Sequence[str] = ()
) -> Select[str, str | None, str, str, datetime | None]:
    """Person id, team id, model name, subscription id and its end of what may be called now: people's own, and
    teams'."""
    theirs = and_(Subscription.team_id.is_(None), one_of(Subscription.person_id, person_ids))
    return (
        select(Subscription.person_id, Subscription.team_id, Model.name, Subscription.id, Subscription.expires_at)
        .join(Model, Model.id == Subscription.model_id)
        .where(
            or_(theirs, one_of(Subscription.team_id, team_ids)) if team_ids else theirs,
            Subscription.status == "active",
        )
        .order_by(Subscription.id.desc())  # of two to one model the older pays
    )


def hand_over(person: Person, *, team: Team | None = None) -> None:
    """Gives what a person asked for a team, or for any, to an owner of it: they stand for it from now on."""
    asked = select(Subscription).where(Subscription.person_id == person.id, Subscription.team_id.is_not(None))
    if team is not None:
        asked = asked.where(Subscription.team_id == team.id)
    for found in db.session.scalars(asked):
        heir = next((one for one in teams.owners_of(found.team) if one.id != person.id), None) if found.team else None
        if heir is not None:
            found.person_id = heir.id
    db.session.flush()


def forget(person: Person) -> None:
    """Removes the subscriptions of a person who is being deleted; what they asked for a team goes to an owner of it,
    if it has another."""
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
    """The gateway must learn of it: by the person's keys, or by the team's."""
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
    """What was written, without the space around it; None for nothing."""
    text = (text or "").strip() or None
    if text and len(text) > LONGEST_TEXT:
        raise Invalid(f"Use at most {LONGEST_TEXT} characters.", field)
    return text


def _href(id: str) -> str:
    """Its page in the portal."""
    return f"/subscriptions/{id}"


def _notify(subscription: Subscription, kind: str, title: str, reason: str | None, text: str) -> None:
    """Tells the person: the reason that somebody gave, then how to go on."""
    notices.notify(subscription.person, kind, title, f"{reason}\n{text}" if reason else text, _href(subscription.id))


def _notify_admins(subscription: Subscription, kind: str, title: str, reason: str | None) -> None:
    """Tells everybody who may decide, but the one who asks."""
    admins = select(Person).where(
        Person.role == "admin", Person.disabled.is_(False), Person.id != subscription.person_id
    )
    for admin in db.session.scalars(admins):
        notices.notify(
            admin, kind, title, reason or "No purpose was given.", f"/admin/subscriptions/{subscription.id}/decision"
        )
