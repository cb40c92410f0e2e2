"""What a person chooses of how the portal looks."""

from __future__ import annotations

import pytest

from app.domain import preferences
from app.domain.errors import Invalid
from app.extensions import transaction
from tests.house import People


def test_a_time_zone_and_a_theme_are_kept(people: People) -> None:
    assert (people.owner.timezone, people.owner.theme) == ("UTC", "system")
    transaction(preferences.choose, people.owner, timezone="Asia/Kathmandu", theme="dark")
    assert (people.owner.timezone, people.owner.theme) == ("Asia/Kathmandu", "dark")


@pytest.mark.parametrize(
    ("zone", "theme", "field"),
    [("Europe/Atlantis", "dark", "timezone"), ("", "dark", "timezone"), ("UTC", "pink", "theme")],
)
def test_what_does_not_exist_is_refused_and_nothing_kept(people: People, zone: str, theme: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        transaction(preferences.choose, people.owner, timezone=zone, theme=theme)
    assert refused.value.field == field
    assert (people.owner.timezone, people.owner.theme) == ("UTC", "system")
