"""Approval rules: which requests for restricted models are approved without an admin, and with which budget.

A rule matches when all its conditions match: the person's role, one of their groups, and the model's prices. The
first matching rule, in order, approves the request; without one the request stays pending.
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
    """One rule. A missing condition matches everyone. Prices are nano-units per million tokens, the budget nano-units."""

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
    days: Mapped[int | None]  # how long an approval lasts; None: without end
    created_at: Mapped[datetime] = mapped_column(default=now)

    @property
    def budget(self) -> dict[str, Any] | None:
        """The budget that an approval gives, as arguments of `budgets.set_budget`; None for no budget."""
        if self.budget_limit_nano is None or self.budget_period is None:
            return None
        return {"limit": money.text(self.budget_limit_nano), "period": self.budget_period}

    def end(self, moment: datetime) -> datetime | None:
        """When an approval given at `moment` expires; None for never."""
        return moment + timedelta(days=self.days) if self.days else None

    def fits(self, person: Person, model: Model) -> bool:
        """Whether all conditions match. A model without a price matches no condition on prices."""
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
    """All rules, in the order in which they are checked."""
    return select(ApprovalRule).order_by(ApprovalRule.position, ApprovalRule.id)


def by_id(id: str) -> ApprovalRule:
    """The rule with this id. Raises `NotFound`."""
    rule = db.session.get(ApprovalRule, id)
    if rule is None:
        raise NotFound("This rule does not exist.")
    return rule


def fitting(person: Person, model: Model) -> ApprovalRule | None:
    """The first active rule that approves this person's request for this model; None if none matches."""
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
    """Create a rule after all others, active immediately. Amounts are decimals; None means no condition.

    Raises `Invalid` naming the field.
    """
    count, last = db.session.execute(select(func.count(), func.coalesce(func.max(ApprovalRule.position), -1))).one()
    if count >= MOST_RULES:
        raise Invalid(f"There are already {MOST_RULES} rules. Delete one first.")
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
    """Replace all fields of a rule. Earlier approvals stay as they are. Raises `Invalid` naming the field."""
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
    """Turn a rule on or off; nothing happens if it is already in that state."""
    if rule.active != active:
        before = rule.summary()
        rule.active = active
        audit.record(
            by, "approval_rule.update", "approval_rule", rule.id, name=rule.name, before=before, after=rule.summary()
        )
    return rule


def move(rule: ApprovalRule, direction: Direction, *, by: Person) -> None:
    """Swap a rule with the one before or after it; at either end it stays in place."""
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
    """Delete a rule. Earlier approvals stay."""
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
        raise Invalid(f"Enter a name of at most {LONGEST_NAME} characters.", "name")
    if role is not None and role not in ROLES:
        raise Invalid(f"Choose one of {', '.join(ROLES)}.", "role")
    group = (group or "").strip() or None
    if group is not None and len(group) > LONGEST_NAME:
        raise Invalid(f"Use at most {LONGEST_NAME} characters.", "group")
    if days is not None and not 1 <= days <= MOST_DAYS:
        raise Invalid(f"Enter a number from 1 to {MOST_DAYS}, or leave this empty.", "days")
    limit = _amount(budget_limit, "budget_limit")
    if limit is not None and budget_period not in budgets.PERIODS:
        raise Invalid(f"Choose one of {', '.join(budgets.PERIODS)}.", "budget_period")
    rule.most_input_per_mtok = _amount(most_input_per_mtok, "most_input_per_mtok")
    rule.most_output_per_mtok = _amount(most_output_per_mtok, "most_output_per_mtok")
    rule.budget_limit_nano, rule.budget_period = limit, budget_period if limit is not None else None
    rule.name, rule.role, rule.group, rule.days = name, role, group, days


def _amount(text: str | None, field: str) -> int | None:
    return amounts.read(text.strip(), field, "This amount") if text and text.strip() else None
