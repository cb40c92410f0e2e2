"""What forms of every door share: a refusal of the domain becomes a fault of the field that caused it.

So a form that the domain refuses is answered like one that the form itself refuses: 422, with everything still filled in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flask import request
from flask_wtf import FlaskForm
from wtforms import Field
from wtforms.widgets import TextInput

from app.domain.errors import DomainError

PERCENT = re.compile(r"\d{1,3}")


class PercentsField(Field):
    """Whole percents, separated by commas; `data` is a list of them."""

    widget = TextInput()

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        if not valuelist:
            return
        words = [word.strip().removesuffix("%").strip() for word in valuelist[0].split(",")]
        if not all(PERCENT.fullmatch(word) for word in words if word):
            raise ValueError("Give whole percents, separated by commas.")
        self.data = [int(word) for word in words if word]

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return ", ".join(str(percent) for percent in self.data or ())


def is_confirmed_by(name: str) -> bool:
    """Whether the form that was sent bears the name of what it is about, as `ui.confirm_form(typed=name)` asks for."""
    return request.form.get("confirm") == name


def blame(form: FlaskForm, error: DomainError, **names: str) -> None:
    """Puts `error` at its field; `names` maps the domain's names to the form's where they differ.

    A fault without a field of this form is the whole form's.
    """
    name = names.get(error.field or "", error.field or "")
    if name in form:
        field = form[name]
        field.errors = [*field.errors, error.message]
    else:
        form.form_errors.append(error.message)
