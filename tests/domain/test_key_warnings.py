"""Warnings of keys: each is given once to the owner, and only of a key that still works and has been there for a day."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.clock import now
from app.domain import key_warnings, keys, notices
from app.domain.notices import Notice
from app.extensions import db, transaction
from tests.domain.test_keys import change, made, told
from tests.house import People

DAY = timedelta(days=1)


def test_an_end_that_comes_near_is_told_once_a_week_and_a_day_before_and_when_it_has_come(people: People) -> None:
    key, _ = made(people, name="aging")
    made(people, name="endless")
    page = f"/keys/{key.id}"
    change(key, created_at=now() - 30 * DAY, expires_at=now() + 8 * DAY)
    assert transaction(key_warnings.send_due) == 0
    expected: list[tuple[str, str | None]] = []
    for left, kind in ((6 * DAY, "key.expires_soon"), (DAY / 2, "key.expires_tomorrow"), (-DAY / 2, "key.expired")):
        change(key, expires_at=now() + left)
        assert transaction(key_warnings.send_due) == 1
        assert transaction(key_warnings.send_due) == 0
        expected.insert(0, (kind, page))
        assert told(people) == expected


@pytest.mark.parametrize("left", [6 * DAY, -30 * DAY])
def test_a_key_just_made_or_long_over_is_not_warned_of(people: People, left: timedelta) -> None:
    key, _ = made(people)
    change(key, expires_at=now() + left)
    transaction(key_warnings.send_due)
    assert told(people) == []


def test_a_later_end_is_warned_of_again(people: People) -> None:
    key, _ = made(people)
    change(key, created_at=now() - 90 * DAY, expires_at=now() + 5 * DAY)
    transaction(key_warnings.send_due)

    def a_month_passes() -> None:
        for notice in db.session.scalars(notices.addressed_to(people.owner)):
            notice.at -= 30 * DAY

    transaction(a_month_passes)
    assert transaction(key_warnings.send_due) == 1


def test_an_old_secret_is_told_once_a_quarter_until_it_is_rotated(people: People) -> None:
    key, _ = made(people)
    made(people, name="young")
    assert transaction(key_warnings.send_due) == 0

    def half_a_year_passes() -> None:
        key.secrets[0].created_at -= 181 * DAY

    transaction(half_a_year_passes)
    assert key.is_old
    assert [transaction(key_warnings.send_due) for _ in range(2)] == [1, 0]
    assert told(people) == [("key.old", f"/keys/{key.id}")]

    def a_quarter_passes() -> None:
        db.session.scalars(notices.addressed_to(people.owner)).one().at -= 91 * DAY

    transaction(a_quarter_passes)
    transaction(keys.rotate, key, by=people.owner)
    assert transaction(key_warnings.send_due) == 0
    assert db.session.query(Notice).count() == 1


def test_what_was_revoked_is_not_warned_of(people: People) -> None:
    key, _ = made(people)
    change(key, created_at=now() - 30 * DAY, expires_at=now() + 3 * DAY, revoked_at=now())
    assert transaction(key_warnings.send_due) == 0
    change(key, revoked_at=None)
    assert transaction(key_warnings.send_due) == 1
