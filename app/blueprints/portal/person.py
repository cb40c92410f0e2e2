"""The person whose portal this is, by type: pages are served only to somebody who is signed in."""

from __future__ import annotations

from typing import cast

from flask_login import current_user

from app.domain.identity import Person


def me() -> Person:
    return cast("Person", current_user._get_current_object())
