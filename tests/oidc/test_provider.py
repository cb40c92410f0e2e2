"""What a provider's claims tell of a person; tests/blueprints/public/test_oidc.py asks one over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.oidc.errors import SignInFailed
from app.oidc.provider import profile_of
from config import Oidc

SETTINGS = Oidc(issuer="https://id.example/", client_id="portico")


def told(*sources: dict[str, Any]) -> Any:
    return profile_of(SETTINGS, "https://id.example/", sources)


def test_the_first_source_that_knows_something_is_believed() -> None:
    found = told({"sub": "s", "groups": []}, {"groups": ["a"], "email": "a@example.org"}, {"email": "b@example.org"})
    assert (found.issuer, found.groups, found.email, found.username) == ("https://id.example", [], "a@example.org", "a")


@pytest.mark.parametrize(
    ("groups", "read"),
    [("one", ["one"]), (["a", 1, None, "a", {"b": 1}, "c\n"], ["a"]), ({"a": 1}, []), (None, []), ([""], [])],
)
def test_groups_are_read_in_odd_shapes(groups: object, read: list[str]) -> None:
    assert told({"sub": "s", "groups": groups}).groups == read


def test_nobody_is_refused() -> None:
    for sub in (None, "", 1, "a\0b", "x" * 300):
        with pytest.raises(SignInFailed):
            told({"sub": sub})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)


@given(
    st.dictionaries(st.sampled_from(["sub", "groups", "email", "email_verified", "preferred_username", "sid"]), JSON)
)
def test_whatever_claims_are_there_is_either_a_person_or_a_refusal(claims: dict[str, Any]) -> None:
    try:
        found = told(claims)
    except SignInFailed:
        return
    assert found.subject == claims["sub"]
    assert found.username
