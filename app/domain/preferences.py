"""How the portal looks for a person: their time zone and theme. Notifications by e-mail are chosen in `notices`."""

from __future__ import annotations

from app.domain.errors import Invalid
from app.domain.person import THEMES, Person
from app.metering import periods


def choose(person: Person, *, timezone: str, theme: str) -> None:
    """Set a person's time zone and theme. Raises `Invalid` naming `timezone` or `theme`."""
    if timezone not in periods.timezones():
        raise Invalid("Enter a time zone such as Europe/Berlin.", "timezone")
    if theme not in THEMES:
        raise Invalid(f"Choose one of {', '.join(THEMES)}.", "theme")
    person.timezone, person.theme = timezone, theme
