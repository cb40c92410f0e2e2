"""Scopes: a member's id is joined and cut in one place."""

from __future__ import annotations

import pytest

from app.directory import ScopeKind
from app.metering.scopes import member_id, team_and_person

TEAM, PERSON, OTHER = "t" * 36, "p" * 36, "o" * 36


def test_what_is_joined_is_cut_into_the_same_two() -> None:
    assert team_and_person("member", member_id(TEAM, PERSON)) == (TEAM, PERSON)


@pytest.mark.parametrize(
    ("kind", "id", "named"),
    [
        ("team", TEAM, (TEAM, None)),
        ("user", PERSON, (None, PERSON)),
        ("key", OTHER, (None, None)),
        ("subscription", OTHER, (None, None)),
        ("organisation", "default", (None, None)),
    ],
)
def test_other_scopes_name_what_they_are(kind: ScopeKind, id: str, named: tuple[str | None, str | None]) -> None:
    assert team_and_person(kind, id) == named
