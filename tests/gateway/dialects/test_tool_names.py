"""A tool's name is one that every upstream takes, and stays its own."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from app.gateway.dialects.tool_names import LONGEST_NAME, short_name


@given(st.text(max_size=200), st.booleans())
def test_every_name_is_taken_everywhere(name: str, is_taken: bool) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]*", short_name(name, is_taken=is_taken))
    assert len(short_name(name, is_taken=is_taken)) <= LONGEST_NAME


@given(st.lists(st.text("ab.é_", min_size=1, max_size=90), unique=True, max_size=30))
def test_no_two_tools_have_the_same(names: list[str]) -> None:
    assert len({short_name(name) for name in names}) == len(names)
    assert all(short_name(name, is_taken=True) != short_name(name) for name in names)


def test_a_name_that_is_good_stays() -> None:
    assert short_name("look_up-2") == "look_up-2"
