"""A form is read as JSON would be: a field that comes again is a list where lists may be, and a fault elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.dialects.openai import JsonRequest
from app.gateway.dialects.openai_forms import LISTS, asked_of, values_of
from app.gateway.errors import ApiError
from app.runtime.forms import Form

LIST_NAMES = st.sampled_from([*LISTS, "tags[]", "include[]"])
ONE_NAMES = st.sampled_from(["model", "prompt", "language", "\u4e2d"])


def form(*fields: tuple[str, str]) -> Form:
    made = Form()
    made.fields = list(fields)
    return made


@given(st.dictionaries(ONE_NAMES, st.text(max_size=9)), st.lists(st.tuples(LIST_NAMES, st.text(max_size=9))))
def test_a_list_has_all_its_values_in_order_and_every_other_field_its_own(
    ones: dict[str, str], many: list[tuple[str, str]]
) -> None:
    values = values_of(form(*ones.items(), *many))
    bases = {name.removesuffix("[]") for name, _ in many}
    lists = {base: [text for name, text in many if name.removesuffix("[]") == base] for base in bases}
    assert values == ones | lists


@pytest.mark.parametrize(
    "fields", [[("model", "a"), ("model", "b")], [("tags", "a"), ("tags[]", "b")], [("tags[]", "a"), ("tags", "b")]]
)
def test_a_field_that_is_no_list_comes_once(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(ApiError) as refused:
        values_of(form(*fields))
    assert (refused.value.status, refused.value.param) == (400, fields[0][0].removesuffix("[]"))


def test_what_steers_the_gateway_is_taken_out_and_counts_nothing() -> None:
    sent = form(
        ("model", "m"),
        ("provider", "up"),
        ("fallback_providers[]", "a"),
        ("fallback_providers", "b"),
        ("new", "\u4e2d"),
    )
    asked = asked_of(sent, JsonRequest)
    assert (asked.checked.provider, asked.checked.fallback_providers) == ("up", ["a", "b"])
    assert asked.form is sent and sent.fields == [("model", "m"), ("new", "\u4e2d")]
    assert asked.size == len("modelmnew\u4e2d".encode())
    assert asked.members == {}


def test_a_form_without_a_model_and_one_with_an_address_are_refused() -> None:
    for fields, param in (((("prompt", "x"),), "model"), ((("model", "m"), ("base_url", "x")), "base_url")):
        with pytest.raises(ApiError) as refused:
            asked_of(form(*fields), JsonRequest)
        assert (refused.value.status, refused.value.param) == (400, param)
