"""The forms of keys: a new key, a key's settings, and its rotation.

A form that creates a secret carries a number that is used once (`app.web.idempotency`), so a double click or a reload
of the response creates nothing more.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from flask_wtf import FlaskForm
from wtforms import (
    DateField,
    HiddenField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    ValidationError,
)
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import Length, Optional

from app import current
from app.clock import LATEST, now
from app.domain import budgets, fields, keys
from app.domain.keys import UNSET, ApiKey, KeyFields
from app.metering import money
from app.pages.budget_forms import amount_judged, timezone_judged
from app.web.forms import EditForm, PercentsField, judged, with_inputs
from app.web.idempotency import LONGEST_NUMBER

LIFETIMES = (30, 60, 90, 180, 365)  # days
UNCHANGED = SelectChoice("keep", "As it is now")
PERIODS = [
    SelectChoice("day", "A day"),
    SelectChoice("week", "A week"),
    SelectChoice("month", "A month"),
    SelectChoice("total", "In total, without end"),
]
REACHES = [
    SelectChoice("all", "All models I am subscribed to, also later ones"),
    SelectChoice("some", "Only the models ticked below"),
]
TEAM_REACHES = [SelectChoice("all", "All models the team is subscribed to, also later ones"), REACHES[1]]
OVERLAPS = [
    SelectChoice("0", "Immediately: applications that use the old secret are refused within a second"),
    SelectChoice("3600", "After an hour"),
    SelectChoice("86400", "After 24 hours"),
    SelectChoice("604800", "After 7 days"),
]


@with_inputs(KeyFields, without=("models", "routing"))
class KeyForm(EditForm):
    """What a key is and how much it may use. Empty limits mean none."""

    reach = RadioField("Models", choices=REACHES, default="all")
    models = SelectMultipleField("Which models", validate_choice=False)
    lifetime = SelectField("Expires")
    expires_on = DateField("Last day", [Optional()], description="Only for “At the end of a date”. Days end in UTC.")
    budget = StringField(
        "Budget",
        [amount_judged],
        description="The most this key may spend in each period, such as 25 or 0.50. Empty for no limit of its own.",
        render_kw={"inputmode": "decimal", "autocomplete": "off"},
    )
    period = SelectField("Budget period", choices=PERIODS, default="month")
    timezone = StringField(
        "Time zone of the period",
        [timezone_judged],
        default="UTC",
        description="Days, weeks and months begin at midnight there, such as Europe/Berlin.",
        render_kw={"list": "timezones", "autocomplete": "off", "spellcheck": "false"},
    )
    thresholds = PercentsField(
        "Alert at",
        [judged(budgets.read_thresholds)],
        default=list(budgets.THRESHOLDS),
        description="Percentages of the budget at which you are notified, separated by commas. Empty for none.",
        render_kw={"autocomplete": "off"},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lifetime.choices = lifetimes()

    def validate_models(self, field: SelectMultipleField) -> None:
        if self.reach.data == "some" and not field.data:
            raise ValidationError("Tick at least one model, or choose all models.")
        if self.reach.data == "all" and field.data:
            raise ValidationError("You ticked models but chose all of them. Choose “Only the models ticked below”.")

    def validate_lifetime(self, field: SelectField) -> None:
        if field.data == "date" and not any(self.expires_on.raw_data or ()):
            raise ValidationError("Enter the last day.")

    def validate_expires_on(self, field: DateField) -> None:
        if self.lifetime.data == "date" and field.data and field.data < now().date():
            raise ValidationError("Enter today or a later day.")
        if self.lifetime.data == "date" and field.data and field.data >= LATEST.date():
            raise ValidationError("Enter a day before the year 3000.")
        if self.lifetime.data != "date" and field.data is not None:
            raise ValidationError("To use this day, choose “At the end of a date” above.")

    def to_changes(self) -> dict[str, Any]:
        """The arguments of `keys.create` and `keys.update`."""
        amount = (self.budget.data or "").strip()
        return {
            **self.entered(),
            "models": self.models.data if self.reach.data == "some" else (),
            "budget": {
                "limit": amount,
                "period": self.period.data,
                "timezone": (self.timezone.data or "UTC").strip() or "UTC",
                "thresholds": self.thresholds.data,
            }
            if amount
            else None,
            "expires_at": _end(self.lifetime.data, self.expires_on.data),
        }


class NewKeyForm(KeyForm):
    """A new key, for a team if `team` names one."""

    once = HiddenField(validators=[Length(max=LONGEST_NUMBER)])
    team = HiddenField()


@with_inputs(KeyFields, without=("models",))
class SettingsForm(KeyForm):
    """A key's settings. Fields that stay as they are are not passed to the domain."""

    reach = RadioField(
        "Models",
        choices=[SelectChoice("all", "All models that its owner is subscribed to, also later ones"), REACHES[1]],
    )
    lifetime = SelectField("Expires", default="keep")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lifetime.choices = [UNCHANGED, *lifetimes()]

    @classmethod
    def of(cls, key: ApiKey) -> SettingsForm:
        """Returns the form with the key's current settings."""
        budget = budgets.find("key", key.id)
        summary: dict[str, Any] = budget.summary() if budget else {}
        form = cls(
            formdata=None,
            data={
                **fields.told(KeyFields, key),
                "reach": "some" if key.models else "all",
                "budget": summary.get("limit", ""),
                "period": summary.get("period", "month"),
                "timezone": summary.get("timezone", "UTC"),
                "thresholds": list(budget.thresholds if budget else budgets.THRESHOLDS),
            },
        )
        end = f"{key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else "never"
        form.lifetime.choices = [SelectChoice(UNCHANGED.value, f"{UNCHANGED.label} ({end})"), *lifetimes()]
        form.beside = key.expires_at
        return form.as_opened()

    def to_changes_of(self, key: ApiKey) -> dict[str, Any]:
        """The arguments of `keys.update` for what changes."""
        changes = self.to_changes()
        if self.lifetime.data == UNCHANGED.value:
            changes["expires_at"] = UNSET
        if _is_budget_of(key, changes["budget"]):
            changes["budget"] = UNSET
        return changes


class RotationForm(FlaskForm):
    """Creates a new secret for a key. `overlap_s` is how long the old one keeps working."""

    once = HiddenField(validators=[Length(max=LONGEST_NUMBER)])
    overlap_s = RadioField("When the old secret expires", choices=OVERLAPS, default="86400")


def lifetimes() -> list[SelectChoice]:
    """The choices of when a key expires, within the maximum of the organisation."""
    most = current.config().keys.max_lifetime_days
    usual = keys.default_lifetime_days()
    offered = sorted({*(days for days in LIFETIMES if not most or days <= most), *([usual] if usual else [])})
    return [
        *([] if most else [SelectChoice("never", "Never")]),
        *(SelectChoice(str(days), "In a year" if days == 365 else f"In {days} days") for days in offered),
        SelectChoice("date", "At the end of a date"),
    ]


def _is_budget_of(key: ApiKey, budget: dict[str, Any] | None) -> bool:
    current = budgets.find("key", key.id)
    if current is None or budget is None:
        return current is None and budget is None
    try:
        limit_nano = money.parse(budget["limit"])
    except money.MoneyError:
        return False
    current_values = current.limit_nano, current.period, current.timezone, current.thresholds
    return (limit_nano, budget["period"], budget["timezone"], sorted(set(budget["thresholds"]))) == current_values


def _end(lifetime: str, day: date | None) -> datetime | None:
    if lifetime == "date" and day is not None:
        return datetime.combine(day + timedelta(days=1), time(), UTC)
    return now() + timedelta(days=int(lifetime)) if lifetime.isdecimal() else None
