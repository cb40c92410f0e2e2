"""The forms of teams: a new one, its settings, its limits, an invitation into it, and a member's role and cap."""

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
    SelectChoice("member", "Member: makes keys and asks for models"),
    SelectChoice("owner", "Owner: also manages members, keys and models"),
]


@with_inputs(TeamFields, only=lambda field: not field.is_number)
class TeamForm(EditForm):
    """What a team is called and what it is for."""

    @classmethod
    def of(cls, team: Team) -> TeamForm:
        return cls(formdata=None, data=fields.told(TeamFields, team)).as_opened()


class TeamBudgetForm(BudgetFields, EditForm):
    """An amount for each period. Empty means no limit."""

    limit = amount_field("Budget", "The most that may be spent in each period. Empty for no limit.")
    period = SelectField("Period", choices=PERIODS, default="month")

    def to_changes(self, kind: str, id: str) -> dict[str, Any] | None | Unset:
        """The budget that is given; `UNSET` when it is the one that the scope has."""
        given, found = self.to_budget(), budgets.find(kind, id)
        if given is None:
            return UNSET if found is None else None
        try:
            same = found is not None and (money.parse(given["limit"]), given["period"], given["timezone"]) == (
                found.limit_nano, found.period, found.timezone,
            )  # fmt: skip
        except money.MoneyError:
            same = False
        return UNSET if same else given


def budget_of(kind: str, id: str) -> dict[str, Any]:
    """What a form shows of the budget that a scope has."""
    found = budgets.find(kind, id)
    told = found.summary() if found else {}
    return {name: told[name] for name in ("limit", "period", "timezone") if name in told}


@with_inputs(TeamFields, only=lambda field: field.is_number)
class BoundsForm(TeamBudgetForm):
    """What bounds all calls of a team together."""

    @classmethod
    def of(cls, team: Team) -> BoundsForm:
        return cls(formdata=None, data=fields.told(TeamFields, team) | budget_of("team", team.id)).as_opened()


class MemberForm(TeamBudgetForm):
    """A member's role, and the most that their keys of the team may spend."""

    role = SelectField("Role", choices=ROLES)
    limit = amount_field("Cap")

    @classmethod
    def of(cls, found: Membership) -> MemberForm:
        data = {"role": found.role, **budget_of("member", found.scope_id)}
        return cls(formdata=None, data=data).as_opened()


class InvitationForm(FlaskForm):
    """Who is asked into the team, and as what."""

    whom = StringField(
        "Username or e-mail",
        [InputRequired("Say whom."), Length(max=255, message="Use at most %(max)d characters.")],
        description="Somebody who has an account here. They may accept or decline.",
        render_kw={"autocomplete": "off", "spellcheck": "false"},
    )
    role = SelectField("Role", choices=ROLES, default="member")


class ModelForm(FlaskForm):
    """Asks for a model for the whole team."""

    model = SelectField("Model", validate_choice=False)
    justification = TextAreaField(
        "What does the team need it for?",
        [Length(max=subscriptions.LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description="An administrator reads this before deciding about a restricted model.",
    )
