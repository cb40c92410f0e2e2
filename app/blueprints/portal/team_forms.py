"""The forms of teams: a new team, its settings, its limits, an invitation, and a member's role and cap."""

from __future__ import annotations

from typing import Any

from flask_wtf import FlaskForm
from wtforms import SelectField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, Length

from app.blueprints.portal.key_forms import PERIODS
from app.domain import budgets, fields, subscriptions
from app.domain.teams import UNSET, Membership, Team, TeamFields, Unset
from app.metering import money
from app.pages.budget_forms import BudgetFields, amount_field
from app.web.forms import EditForm, with_inputs

ROLES = [
    SelectChoice("member", "Member: creates keys and requests models"),
    SelectChoice("owner", "Owner: also manages members, keys and models"),
]


@with_inputs(TeamFields, only=lambda field: not field.is_number)
class TeamForm(EditForm):
    """A team's name and purpose."""

    @classmethod
    def of(cls, team: Team) -> TeamForm:
        return cls(formdata=None, data=fields.told(TeamFields, team)).as_opened()


class TeamBudgetForm(BudgetFields, EditForm):
    """An amount for each period. Empty means no limit."""

    limit = amount_field("Budget", "The most that may be spent in each period. Empty for no limit.")
    period = SelectField("Period", choices=PERIODS, default="month")

    def to_changes(self, kind: str, id: str) -> dict[str, Any] | None | Unset:
        """The budget of the form; `UNSET` if the scope already has it, None to remove it."""
        budget, current = self.to_budget(), budgets.find(kind, id)
        if budget is None:
            return UNSET if current is None else None
        try:
            same = current is not None and (money.parse(budget["limit"]), budget["period"], budget["timezone"]) == (
                current.limit_nano, current.period, current.timezone,
            )  # fmt: skip
        except money.MoneyError:
            same = False
        return UNSET if same else budget


def budget_of(kind: str, id: str) -> dict[str, Any]:
    """The fields of a scope's budget, as a form shows them."""
    budget = budgets.find(kind, id)
    summary = budget.summary() if budget else {}
    return {name: summary[name] for name in ("limit", "period", "timezone") if name in summary}


@with_inputs(TeamFields, only=lambda field: field.is_number)
class BoundsForm(TeamBudgetForm):
    """The limits of all calls of a team together."""

    @classmethod
    def of(cls, team: Team) -> BoundsForm:
        return cls(formdata=None, data=fields.told(TeamFields, team) | budget_of("team", team.id)).as_opened()


class MemberForm(TeamBudgetForm):
    """A member's role, and the most that their keys of the team may spend."""

    role = SelectField("Role", choices=ROLES)
    limit = amount_field("Cap")

    @classmethod
    def of(cls, member: Membership) -> MemberForm:
        data = {"role": member.role, **budget_of("member", member.scope_id)}
        return cls(formdata=None, data=data).as_opened()


class InvitationForm(FlaskForm):
    """Who is invited to the team, and with which role."""

    whom = StringField(
        "Username or e-mail",
        [InputRequired("Say whom."), Length(max=255, message="Use at most %(max)d characters.")],
        description="Somebody who has an account here. They may accept or decline.",
        render_kw={"autocomplete": "off", "spellcheck": "false"},
    )
    role = SelectField("Role", choices=ROLES, default="member")


class ModelForm(FlaskForm):
    """Requests a model for the whole team."""

    model = SelectField("Model", validate_choice=False)
    justification = TextAreaField(
        "What does the team need it for?",
        [Length(max=subscriptions.LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description="An administrator reads this before deciding about a restricted model.",
    )
