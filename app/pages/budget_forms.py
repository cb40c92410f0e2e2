"""The fields of a budget, for forms of both doors: an amount of money, its period and the period's time zone."""

from __future__ import annotations

from typing import Any

from wtforms import SelectField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older

from app.domain import amounts, budgets
from app.pages.budgets import PERIODS
from app.web.forms import judged

PERIOD_CHOICES = [SelectChoice(name, words) for name, words in PERIODS.items()]


amount_judged = judged(lambda text: amounts.read(text.strip(), "limit", "The limit") if text.strip() else None)
timezone_judged = judged(budgets.read_timezone)


def amount_field(label: str, description: str = "", validators: list[Any] | None = None) -> StringField:
    """A field for an amount of money. Its data is text, which the domain parses."""
    return StringField(
        label, validators, description=description, render_kw={"inputmode": "decimal", "autocomplete": "off"}
    )


class BudgetFields:
    """Fields that a form about a budget inherits."""

    limit = amount_field(
        "Budget", "The most that may be spent in each period. Empty removes the limit.", [amount_judged]
    )
    period = SelectField("Period", choices=PERIOD_CHOICES, default="month")
    timezone = StringField(
        "Time zone of the period",
        default="UTC",
        description="Periods begin at midnight there, such as Europe/Berlin.",
        validators=[timezone_judged],
        render_kw={"autocomplete": "off", "spellcheck": "false"},
    )

    def to_budget(self) -> dict[str, Any] | None:
        """Returns the budget as `budgets.set_budget` takes it; None without an amount."""
        amount = (self.limit.data or "").strip()
        zone = (self.timezone.data or "").strip() or "UTC"
        return {"limit": amount, "period": self.period.data, "timezone": zone} if amount else None
