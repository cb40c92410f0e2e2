"""What forms of every door share: a refusal of the domain becomes a fault of the field that caused it.

So a form that the domain refuses is answered like one that the form itself refuses: 422, with everything still filled in.
"""

from __future__ import annotations

from flask_wtf import FlaskForm

from app.domain.errors import DomainError


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
