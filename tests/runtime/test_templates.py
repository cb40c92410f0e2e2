"""Templates: variables are found in order, filled once, and never missed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.templates import WrongVariable, fill_in, variables_of


def test_variables_are_named_once_and_in_order() -> None:
    assert variables_of("{{b}} {{ a }} {{b}} {{1a}} {c} {{d e}} {{\n}}") == ["b", "a"]


def test_values_are_put_in_as_they_are() -> None:
    assert fill_in("{{a}}+{{ b }}={{a}}", {"a": "{{b}}", "b": 2}) == "{{b}}+2={{b}}"


@pytest.mark.parametrize(("values", "name"), [({}, "a"), ({"a": "1", "b": "2"}, "b")])
def test_a_missing_and_an_unknown_variable_are_named(values: dict[str, str], name: str) -> None:
    with pytest.raises(WrongVariable) as wrong:
        fill_in("{{a}}", values)
    assert wrong.value.name == name


@given(st.text(), st.text())
def test_what_stands_around_a_variable_stays(before: str, value: str) -> None:
    before = before.replace("{", "")
    assert fill_in(before + "{{x}}" + before, {"x": value}) == before + value + before
