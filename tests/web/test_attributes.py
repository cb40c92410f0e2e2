"""Spare arguments of macros as HTML attributes: only what is set, always escaped, nothing that the policy refuses."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.attributes import attributes, hyphenated

NAMES = st.from_regex(r"(hx|data|aria)_(?!on)[a-z]{1,8}", fullmatch=True)  # what begins with hx_on is refused
VALUES = st.one_of(st.booleans(), st.none(), st.integers(), st.text())


def test_attributes_the_policy_would_refuse_are_refused() -> None:
    assert (
        attributes({"hx_get": "/x", "hidden": True, "title": None, "data_x": '"'})
        == ' hx-get="/x" hidden data-x="&#34;"'
    )
    for name in ("style", "onclick", "hx_on_click"):
        with pytest.raises(ValueError, match="refuses"):
            attributes({name: "x"})


def test_what_is_not_set_is_not_written() -> None:
    assert attributes({"hidden": False, "title": None, "disabled": True, "value": 0, "alt": ""}) == (
        ' disabled value="0" alt=""'
    )
    assert attributes({"id": "x", "title": "t"}, "id") == ' title="t"'
    assert attributes({"class_": "wide", "for_": "name"}) == ' class="wide" for="name"'


@given(st.dictionaries(NAMES, VALUES))
def test_every_value_comes_back_and_none_ends_its_attribute(values: dict[str, object]) -> None:
    written = str(attributes(values))
    read = {name: unescape(value) for name, value in re.findall(r' ([a-z-]+)="([^"]*)"', written)}
    bare = set(re.findall(r" ([a-z-]+)(?= |$)", re.sub(r'="[^"]*"', '=""', written)))
    expected = {
        name.replace("_", "-"): value for name, value in values.items() if value is not None and value is not False
    }
    assert read == {name: str(value) for name, value in expected.items() if value is not True}
    assert bare == {name for name, value in expected.items() if value is True}


def test_arguments_for_wtforms_lose_what_is_not_set() -> None:
    assert hyphenated({"hx_get": "/x", "hidden": False, "title": None, "required": True}) == {
        "hx-get": "/x", "required": True,
    }  # fmt: skip
