"""The signed-in admin, with their type: this door serves nobody else."""

from __future__ import annotations

from typing import cast

from flask_login import current_user

from app.domain.person import Person


def me() -> Person:
    """Returns the admin who made this request."""
    return cast("Person", current_user._get_current_object())
