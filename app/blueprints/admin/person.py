"""The admin whose request this is, by type: the door lets nobody else in."""

from __future__ import annotations

from typing import cast

from flask_login import current_user

from app.domain.person import Person


def me() -> Person:
    return cast("Person", current_user._get_current_object())
