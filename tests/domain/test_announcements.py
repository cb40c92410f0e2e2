"""Announcements: one banner at a time, until it ends or is taken down."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.clock import now
from app.domain import announcements, audit
from app.domain.errors import Invalid
from app.extensions import db, transaction
from tests.house import People

HOUR = timedelta(hours=1)


def up(people: People, text: str = "Updates tonight.", **values: object) -> None:
    transaction(announcements.put_up, by=people.admin, **{"level": "info", "text": text, **values})  # type: ignore[arg-type]


def standing() -> str | None:
    db.session.rollback()
    found = db.session.scalar(announcements.standing())
    return found.text if found else None


def test_a_banner_stands_until_its_end(people: People, set_clock) -> None:
    start = now().replace(microsecond=0)
    set_clock(start)
    up(people, ends_at=start + HOUR)
    set_clock(start + HOUR - timedelta(seconds=1))
    assert standing() == "Updates tonight."
    set_clock(start + HOUR)
    assert standing() is None


def test_a_new_banner_takes_the_place_of_the_one_before_for_good(people: People) -> None:
    up(people, "one")
    up(people, " two ")
    assert standing() == "two"
    assert transaction(announcements.take_down, by=people.admin)
    assert standing() is None


def test_taking_down_what_is_not_there_leaves_no_trace(people: People) -> None:
    assert not transaction(announcements.take_down, by=people.admin)
    assert db.session.scalars(audit.entries(about="announcement")).all() == []


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"level": "loud"}, "level"),
        ({"text": "  "}, "text"),
        ({"text": "x" * (announcements.LONGEST_TEXT + 1)}, "text"),
        ({"ends_at": now() - HOUR}, "ends_at"),
    ],
)
def test_a_banner_that_makes_no_sense_leaves_the_present_one(
    people: People, values: dict[str, object], field: str
) -> None:
    up(people, "stays")
    with pytest.raises(Invalid) as refused:
        up(people, **{"text": "new", **values})
    assert (refused.value.field, standing()) == (field, "stays")
    up(people, "x" * announcements.LONGEST_TEXT)
