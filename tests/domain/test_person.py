"""The person: which scopes a role holds, who sees and changes everything, and what the audit log is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.person import ROLES, SCOPES, Person


def person(role: str = "user", **values: object) -> Person:
    return Person(**{"id": "1", "username": "ada", "role": role, "scopes": list(SCOPES), "groups": [], **values})


@given(st.sampled_from([*ROLES, "unknown"]), st.lists(st.sampled_from([*SCOPES, "unknown"])))
def test_nobody_holds_more_than_was_granted_or_than_the_role_allows(role: str, granted: list[str]) -> None:
    held = person(role, scopes=granted).held_scopes
    assert set(held) <= set(granted) and set(held) <= set(SCOPES)
    assert "admin" not in held or role in ("admin", "admin-readonly")
    if role == "unknown":
        assert held == ()
    elif role != "user":
        assert set(held) == set(granted) & set(SCOPES)


@pytest.mark.parametrize(
    ("role", "changes", "sees"), [("user", False, False), ("admin-readonly", False, True), ("admin", True, True)]
)
def test_a_role_says_who_sees_and_who_changes_everything(role: str, changes: bool, sees: bool) -> None:
    assert (person(role).is_admin, person(role).sees_everything) == (changes, sees)


def test_who_is_disabled_is_not_active() -> None:
    assert (person(disabled=True).is_active, person(disabled=True).status) == (False, "deactivated")
    assert (person(disabled=False).is_active, person(disabled=False).status) == (True, "active")


def test_a_summary_bears_no_password() -> None:
    assert "x-secret-hash" not in str(person(password_hash="x-secret-hash").summary())
