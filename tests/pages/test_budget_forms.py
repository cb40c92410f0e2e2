"""The fields of a budget: one way to read them, whatever form they stand in."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask_wtf import FlaskForm
from wtforms import SelectField

from app.pages.budget_forms import BudgetFields, amount_field


class CapForm(BudgetFields, FlaskForm):
    """A form that calls the amount otherwise, and has a field of its own."""

    role = SelectField("Role", choices=["member", "owner"])
    limit = amount_field("Cap")


@pytest.mark.parametrize(
    ("sent", "budget"),
    [
        ({}, None),
        ({"limit": "  ", "period": "day"}, None),
        ({"limit": " 25.50 ", "period": "day"}, {"limit": "25.50", "period": "day", "timezone": "UTC"}),
        (
            {"limit": "0", "period": "total", "timezone": " Europe/Berlin "},
            {"limit": "0", "period": "total", "timezone": "Europe/Berlin"},
        ),
    ],
)
def test_a_budget_is_what_the_fields_say_and_none_without_an_amount(
    sent: dict[str, str], budget: dict[str, Any] | None
) -> None:
    app = Flask("forms")
    app.config.update(SECRET_KEY="test", WTF_CSRF_ENABLED=False)
    with app.test_request_context("/", method="POST", data={"role": "owner", **sent}):
        form = CapForm()
        assert (form.to_budget(), form.role.data, form.limit.label.text) == (budget, "owner", "Cap")


def test_an_empty_form_proposes_a_budget_of_each_month_in_utc() -> None:
    app = Flask("forms")
    app.config.update(SECRET_KEY="test", WTF_CSRF_ENABLED=False)
    with app.test_request_context("/"):
        form = CapForm()
        assert (form.period.data, form.timezone.data, form.limit.data) == ("month", "UTC", None)
