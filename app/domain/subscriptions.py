"""Subscriptions: who may call which model, from the request to its end, with every step on a timeline.

A person has at most one live subscription (pending, active or suspended) to a model; asking again answers it.
Models that are not restricted are active at once; the others wait for an admin's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import ForeignKey, Index, Select, String, Text, func, or_, select
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.domain import audit, budgets, notices
from app.domain.catalog import Model
from app.domain.changes import touch
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.extensions import Base, db, now
from app.ids import new_id

if TYPE_CHECKING:
    from app.domain.identity import Person

Status = Literal["pending", "active", "denied", "suspended", "cancelled", "expired"]
STATUSES: tuple[Status, ...] = get_args(Status)
LIVE: tuple[Status, ...] = ("pending", "active", "suspended")
LONGEST_TEXT = 2000

Decision = Literal["approve", "deny", "suspend", "resume"]
# decision -> the statuses it may be made in, the status it leads to
DECISIONS: dict[Decision, tuple[tuple[Status, ...], Status]] = {
    "approve": (("pending",), "active"),
    "deny": (("pending",), "denied"),
    "suspend": (("active",), "suspended"),
    "resume": (("suspended",), "active"),
}


class Subscription(Base):
    """One person's access to one model. `model_name` stays when the model goes."""

    __tablename__ = "subscription"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    team_id: Mapped[str | None] = mapped_column(String(36))
    model_id: Mapped[str | None] = mapped_column(ForeignKey("model.id", ondelete="SET NULL"), index=True)
    model_name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16), index=True)
    justification: Mapped[str | None] = mapped_column(Text)
    decision_reason: Mapped[str | None] = mapped_column(Text)
    decided_by: Mapped[str | None] = mapped_column(String(64))
    decided_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    renewal_asked_at: Mapped[datetime | None]  # the person asks for a later end; an admin's approval answers it
    renewal_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    person: Mapped[Person] = relationship("Person", lazy="joined")
    model: Mapped[Model | None] = relationship(lazy="joined")
    timeline: Mapped[list[SubscriptionStep]] = relationship(
        order_by="(SubscriptionStep.at, SubscriptionStep.id)", cascade="all, delete-orphan", lazy="select"
    )

    @property
    def is_live(self) -> bool:
        return self.status in LIVE


Index(
    "uq_subscription_live",
    Subscription.person_id,
    Subscription.model_id,
    func.coalesce(Subscription.team_id, ""),
    unique=True,
    sqlite_where=Subscription.status.in_(LIVE),
    postgresql_where=Subscription.status.in_(LIVE),
)


class SubscriptionStep(Base):
    """One step of a subscription's timeline: the status it led to, who made it and why."""

    __tablename__ = "subscription_step"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscription.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(default=now)
    status: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)


def reachable(person: Person) -> Select[Subscription]:
    """The subscriptions this person can see, newest first: their own; everybody's for admins."""
    found = select(Subscription).order_by(Subscription.id.desc())
    return found if person.sees_everything else found.where(Subscription.person_id == person.id)


def of(person: Person, *, status: str | None = None) -> Select[Subscription]:
    """A person's own subscriptions, newest first."""
    found = select(Subscription).where(Subscription.person_id == person.id).order_by(Subscription.id.desc())
    return found.where(Subscription.status == status) if status else found


def reach(person: Person, id: str, *, change: bool = False) -> Subscription:
    """The subscription of that id among those reachable; raises `NotFound`, or `Forbidden` when a read-only admin
    wants to change somebody else's."""
    found = db.session.scalar(reachable(person).where(Subscription.id == id))
    if found is None:
        raise NotFound("There is no such subscription.")
    if change and found.person_id != person.id and not person.is_admin:
        raise Forbidden("Changing other people's subscriptions needs the role admin.")
    return found


def live(person: Person, model: Model) -> Subscription | None:
    """The person's pending, active or suspended subscription to a model."""
    return db.session.scalar(
        of(person).where(Subscription.model_id == model.id, Subscription.status.in_(LIVE)).limit(1)
    )


def latest_by_model(person: Person) -> dict[str, Subscription]:
    """The person's newest subscription to each model, by the model's id: for the catalogue."""
    latest: dict[str, Subscription] = {}
    for found in db.session.scalars(of(person)):
        if found.model_id:
            latest.setdefault(found.model_id, found)
    return latest


def waiting() -> Select[Subscription]:
    """What waits for an admin's decision, the longest first."""
    return select(Subscription).where(Subscription.status == "pending").order_by(Subscription.id)


def waiting_count() -> int:
    return (
        db.session.scalar(select(func.count()).select_from(Subscription).where(Subscription.status == "pending")) or 0
    )


def asked(*, status: str | None = None, search: str | None = None) -> Select[Subscription]:
    """What needs or had an admin's decision: what waits first, the longest waiting before others, then what was
    decided, the latest first. Narrowed to a status, and to persons and models whose names contain `search`."""
    from app.domain.identity import Person

    waits = Subscription.status == "pending"
    found = select(Subscription).where(or_(waits, Subscription.decided_at.is_not(None)))
    if status:
        found = found.where(Subscription.status == status)
    if search:
        found = found.join(Person, Person.id == Subscription.person_id).where(
            Person.username.icontains(search, autoescape=True)
            | Subscription.model_name.icontains(search, autoescape=True)
        )
    return found.order_by(~waits, Subscription.decided_at.desc(), Subscription.id)


def live_count(model: Model) -> int:
    """How many live subscriptions there are to a model."""
    query = select(func.count()).where(Subscription.model_id == model.id, Subscription.status.in_(LIVE))
    return db.session.scalar(query) or 0


def request(person: Person, model: Model, *, by: Person, justification: str | None = None) -> tuple[Subscription, bool]:
    """Asks for access: the subscription, and whether it is new. Raises `Invalid` for a model not on offer."""
    existing = live(person, model)
    if existing is not None:
        return existing, False
    if model.status not in ("active", "deprecated"):
        raise Invalid(f"{model.name} is not on offer.", "model")
    justification = (justification or "").strip() or None
    if justification and len(justification) > LONGEST_TEXT:
        raise Invalid(f"Use at most {LONGEST_TEXT} characters.", "justification")
    made = Subscription(
        id=new_id(),
        person_id=person.id,
        person=person,
        model=model,
        model_name=model.name,
        status="pending" if model.restricted else "active",
        justification=justification,
    )
    db.session.add(made)
    db.session.flush()
    _step(made, by, justification)
    audit.record(by, "subscription.request", "subscription", made.id, name=model.name, after={"status": made.status})
    touch("person", person.id)
    return made, True


def decide(
    found: Subscription,
    decision: str,
    *,
    by: Person,
    reason: str | None = None,
    expires_at: datetime | None = None,
    budget: Mapping[str, Any] | None = None,
) -> Subscription:
    """An admin's decision; `budget` bears limit, period and timezone as `budgets.set_budget` takes them.

    Raises `Invalid` for an unknown decision or a denial without reason, `Conflict` when the subscription's status
    does not allow it.
    """
    if decision not in DECISIONS:
        raise Invalid(f"Choose one of {', '.join(DECISIONS)}.", "decision")
    allowed, status = DECISIONS[decision]
    reason = (reason or "").strip() or None
    if decision == "deny" and not reason:
        raise Invalid("Give a reason; the person will read it.", "reason")
    if reason and len(reason) > LONGEST_TEXT:
        raise Invalid(f"Use at most {LONGEST_TEXT} characters.", "reason")
    if expires_at is not None and expires_at <= now():
        raise Invalid("Give an instant in the future.", "expires_at")
    # Two admins at one instant: the second sees what the first did.
    db.session.refresh(found, ["status"], with_for_update={"of": Subscription})
    if found.status not in allowed:
        raise Conflict(f"This subscription is {found.status}; {decision} needs one that is {' or '.join(allowed)}.")
    found.decided_by, found.decided_at, found.decision_reason = by.username, now(), reason
    if expires_at is not None:
        found.expires_at = expires_at
    if budget is not None:
        budgets.set_budget("subscription", found.id, by=by, **budget)
    _move(found, status, by, f"subscription.{decision}", reason)
    return found


def cancel(found: Subscription, *, by: Person | None, reason: str | None = None) -> Subscription:
    """Ends a live subscription, or withdraws one that is pending; raises `Conflict` when it has ended already."""
    if not found.is_live:
        raise Conflict(f"This subscription is {found.status} already.")
    _move(found, "cancelled", by, "subscription.cancel", reason)
    return found


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
    found = db.session.scalars(
        select(Subscription)
        .where(Subscription.model_id == model.id, Subscription.status == "active")
        .with_for_update(of=Subscription)
    ).all()
    for one in found:
        one.decided_by = one.decided_at = one.decision_reason = None
        _move(one, "pending", by, "subscription.restrict", reason)
        notices.tell(
            one.person,
            "subscription.restrict",
            f"Your access to {model.name} waits for approval again",
            f"{model.name} has become restricted. Calls are refused until an administrator has decided.",
            f"/models/{model.name}",
        )
    return len(found)


def expire_due(limit: int = 500) -> int:
    """Ends the subscriptions whose time is over; how many there were. The meter stops at the same instant by
    itself only for keys, so this runs each minute."""
    due = db.session.scalars(
        select(Subscription).where(Subscription.status.in_(LIVE), Subscription.expires_at <= now()).limit(limit)
    ).all()
    for found in due:
        _move(found, "expired", None, "subscription.expire", None)
    return len(due)


def usable(person_ids: list[str]) -> Select[str, str, str]:
    """Person id, model name, subscription id of what may be called now."""
    return (
        select(Subscription.person_id, Model.name, Subscription.id)
        .join(Model, Model.id == Subscription.model_id)
        .where(
            Subscription.person_id.in_(person_ids),
            Subscription.team_id.is_(None),
            Subscription.status == "active",
            or_(Subscription.expires_at.is_(None), Subscription.expires_at > now()),
        )
    )


def forget(person: Person) -> None:
    """Removes all subscriptions of a person who is being deleted."""
    for found in db.session.scalars(of(person)):
        budgets.forget("subscription", found.id)
        db.session.delete(found)


def _move(found: Subscription, status: Status, by: Person | None, action: str, reason: str | None) -> None:
    before = {"status": found.status}
    found.status = status
    found.updated_at = now()
    _step(found, by, reason)
    audit.record(
        by,
        action,
        "subscription",
        found.id,
        name=found.model_name,
        before=before,
        after={"status": status},
        reason=reason,
        on_behalf_of=found.person.username if by is None or by.id != found.person_id else None,
    )
    touch("person", found.person_id)


def _step(found: Subscription, by: Person | None, reason: str | None) -> None:
    db.session.add(
        SubscriptionStep(
            subscription_id=found.id, status=found.status, actor=by.username if by else audit.SYSTEM, reason=reason
        )
    )
