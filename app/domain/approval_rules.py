"""Approval rules: which requests for restricted models need no admin, and with which budget they are approved.

A rule fits when everything that it names fits: the person's role, a group of theirs, and the model's prices. The
first fitting rule, in their order, approves; without one the request waits.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Select, String, func, select
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.domain import amounts, audit, budgets
from app.domain.catalog import Model
from app.domain.errors import Invalid, NotFound
from app.domain.person import ROLES, Person
from app.extensions import Base, db
from app.metering import money
from app.runtime.ids import new_id

Direction = Literal["up", "down"]
LONGEST_NAME = 100
MOST_DAYS = 3650
MOST_RULES = 200


class ApprovalRule(Base):
    """One rule. Absent conditions fit everybody; prices are nano-units a million tokens, the budget nano-units."""

    __tablename__ = "approval_rule"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100))
    position: Mapped[int] = mapped_column(default=0)
    active: Mapped[bool] = mapped_column(default=True)
    role: Mapped[str | None] = mapped_column(String(16))
    group: Mapped[str | None] = mapped_column("group_name", String(100))
    most_input_per_mtok: Mapped[int | None]
    most_output_per_mtok: Mapped[int | None]
    budget_limit_nano: Mapped[int | None]
    budget_period: Mapped[str | None] = mapped_column(String(8))
    days: Mapped[int | None]  # how long an approval lasts; None for as long as it is not ended
    created_at: Mapped[datetime] = mapped_column(default=now)

    @property
    def budget(self) -> dict[str, Any] | None:
        """The budget of an approval, as `budgets.set_budget` takes it."""
        if self.budget_limit_nano is None or self.budget_period is None:
            return None
        return {"limit": money.text(self.budget_limit_nano), "period": self.budget_period}

    def end(self, moment: datetime) -> datetime | None:
        """When an approval of that moment ends."""
        return moment + timedelta(days=self.days) if self.days else None

    def fits(self, person: Person, model: Model) -> bool:
        """Whether all that it names fits. What has no price is never below one."""
        if self.role is not None and person.role != self.role:
            return False
        if self.group is not None and self.group.casefold() not in {group.casefold() for group in person.groups}:
            return False
        price = model.price
        bounds = (
            (self.most_input_per_mtok, price.input_per_mtok if price else None),
            (self.most_output_per_mtok, price.output_per_mtok if price else None),
        )
        return all(most is None or (asked is not None and asked <= most) for most, asked in bounds)

    def summary(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "active": self.active,
            "role": self.role,
            "group": self.group,
            "most_input_per_mtok": money.optional_text(self.most_input_per_mtok),
            "most_output_per_mtok": money.optional_text(self.most_output_per_mtok),
            "budget": self.budget,
            "days": self.days,
        }


def in_order() -> Select[ApprovalRule]:
    """All rules, the first to be asked first."""
    return select(ApprovalRule).order_by(ApprovalRule.position, ApprovalRule.id)


def by_id(id: str) -> ApprovalRule:
    """The rule of that id; raises `NotFound`."""
    rule = db.session.get(ApprovalRule, id)
    if rule is None:
        raise NotFound("There is no such rule.")
    return rule


def fitting(person: Person, model: Model) -> ApprovalRule | None:
    """The first active rule that approves this person's request for this model."""
    active = db.session.scalars(in_order().where(ApprovalRule.active.is_(True)))
    return next((rule for rule in active if rule.fits(person, model)), None)


def create(
    *,
    by: Person,
    name: str,
    role: str | None = None,
    group: str | None = None,
    most_input_per_mtok: str | None = None,
    most_output_per_mtok: str | None = None,
    budget_limit: str | None = None,
    budget_period: str = "month",
    days: int | None = None,
) -> ApprovalRule:
    """A new rule behind all others, active at once. Amounts are decimals; absent ones are no condition. Raises
    `Invalid` naming the input at fault."""
    count, last = db.session.execute(select(func.count(), func.coalesce(func.max(ApprovalRule.position), -1))).one()
    if count >= MOST_RULES:
        raise Invalid(f"There are {MOST_RULES} rules already; delete one first.")
    rule = ApprovalRule(id=new_id(), position=last + 1, active=True)
    _fill(
        rule,
        name=name,
        role=role,
        group=group,
        most_input_per_mtok=most_input_per_mtok,
        most_output_per_mtok=most_output_per_mtok,
        budget_limit=budget_limit,
        budget_period=budget_period,
        days=days,
    )
    db.session.add(rule)
    db.session.flush()
    audit.record(by, "approval_rule.create", "approval_rule", rule.id, name=rule.name, after=rule.summary())
    return rule


def update(
    rule: ApprovalRule,
    *,
    by: Person,
    name: str,
    role: str | None,
    group: str | None,
    most_input_per_mtok: str | None,
    most_output_per_mtok: str | None,
    budget_limit: str | None,
    budget_period: str,
    days: int | None,
) -> ApprovalRule:
    """Makes a rule say this; what it approved before stays as it is."""
    before = rule.summary()
    _fill(
        rule,
        name=name,
        role=role,
        group=group,
        most_input_per_mtok=most_input_per_mtok,
        most_output_per_mtok=most_output_per_mtok,
        budget_limit=budget_limit,
        budget_period=budget_period,
        days=days,
    )
    audit.record(
        by, "approval_rule.update", "approval_rule", rule.id, name=rule.name, before=before, after=rule.summary()
    )
    return rule


def switch(rule: ApprovalRule, *, active: bool, by: Person) -> ApprovalRule:
    """Switches a rule on or off; nothing happens when it is so already."""
    if rule.active != active:
        before = rule.summary()
        rule.active = active
        audit.record(
            by, "approval_rule.update", "approval_rule", rule.id, name=rule.name, before=before, after=rule.summary()
        )
    return rule


def move(rule: ApprovalRule, direction: Direction, *, by: Person) -> None:
    """Lets a rule change places with the one before or after it; at either end it stays."""
    rules = list(db.session.scalars(in_order()))
    place = rules.index(rule)
    other = place - 1 if direction == "up" else place + 1
    if not 0 <= other < len(rules):
        return
    rules[place], rules[other] = rules[other], rules[place]
    for position, one in enumerate(rules):
        one.position = position
    audit.record(
        by,
        "approval_rule.move",
        "approval_rule",
        rule.id,
        name=rule.name,
        before={"place": place + 1},
        after={"place": other + 1},
    )


def delete(rule: ApprovalRule, *, by: Person) -> None:
    """Removes a rule; what it approved stays approved."""
    audit.record(by, "approval_rule.delete", "approval_rule", rule.id, name=rule.name, before=rule.summary(), after={})
    db.session.delete(rule)


def _fill(
    rule: ApprovalRule,
    *,
    name: str,
    role: str | None,
    group: str | None,
    most_input_per_mtok: str | None,
    most_output_per_mtok: str | None,
    budget_limit: str | None,
    budget_period: str,
    days: int | None,
) -> None:
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise Invalid(f"Give the rule a name of at most {LONGEST_NAME} characters.", "name")
    if role is not None and role not in ROLES:
        raise Invalid(f"Choose one of {', '.join(ROLES)}.", "role")
    group = (group or "").strip() or None
    if group is not None and len(group) > LONGEST_NAME:
        raise Invalid(f"Use at most {LONGEST_NAME} characters.", "group")
    if days is not None and not 1 <= days <= MOST_DAYS:
        raise Invalid(f"Give a number from 1 to {MOST_DAYS}, or nothing.", "days")
    limit = _amount(budget_limit, "budget_limit")
    if limit is not None and budget_period not in budgets.PERIODS:
        raise Invalid(f"Choose one of {', '.join(budgets.PERIODS)}.", "budget_period")
    rule.most_input_per_mtok = _amount(most_input_per_mtok, "most_input_per_mtok")
    rule.most_output_per_mtok = _amount(most_output_per_mtok, "most_output_per_mtok")
    rule.budget_limit_nano, rule.budget_period = limit, budget_period if limit is not None else None
    rule.name, rule.role, rule.group, rule.days = name, role, group, days


def _amount(text: str | None, field: str) -> int | None:
    return amounts.read(text.strip(), field, "This amount") if text and text.strip() else None
