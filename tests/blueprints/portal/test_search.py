"""The portal's search: a page of what was found, grouped by kind, and suggestions below the masthead's field."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from app.domain.catalog import Model
from tests.blueprints.portal.conftest import Browser, make_key
from tests.house import People

SignedIn = Callable[[str], Browser]


def test_the_masthead_leads_to_a_page_of_what_was_found(people: People, small: Model, signed_in: SignedIn) -> None:
    key_id, _ = make_key(people.owner, name="small app")
    owner = signed_in("owner")
    assert "Search everything" in [field.name for field in owner.page("/home").whole.fields]
    found = owner.page("/search?q=small")
    assert found.total == "2 results"
    assert found.section("Models").link("small").href == "/models/small"
    assert found.section("API keys").link("small app").href == f"/keys/{key_id}"
    assert found.field("Search everything").value == "small"
    only_keys = owner.page("/search?q=small&kind=key", fragment=True)
    assert only_keys.hrefs[-1] == f"/keys/{key_id}"
    assert "Models" not in only_keys.headings


def test_people_and_providers_are_offered_to_admins_alone(people: People, signed_in: SignedIn) -> None:
    for name, sees in (("owner", False), ("auditor", True)):
        kinds = signed_in(name).page("/search").field("Kind").choices
        assert [kind in kinds for kind in ("People", "Providers", "Models")] == [sees, sees, True]
    assert signed_in("auditor").page("/search?q=stranger").section("People").link("stranger")
    assert "No match" in signed_in("owner").page("/search?q=stranger&kind=person").headings, "the filter is not theirs"


@pytest.mark.parametrize(
    ("query", "heading"),
    [
        ("", "Search everything you can see"),
        ("?q=x", "Search everything you can see"),
        ("?q=nothing+like+it", "No match"),
    ],
)
def test_a_page_without_matches_says_what_to_do(people: People, signed_in: SignedIn, query: str, heading: str) -> None:
    assert heading in signed_in("owner").page(f"/search{query}").headings


def test_suggestions_are_links_in_groups_and_nothing_for_one_character(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    for number in range(20):
        make_key(people.owner, name=f"small {number}")
    owner = signed_in("owner")
    told = owner.page("/search/suggestions?q=small", fragment=True)
    assert len(told.links) == 12
    assert told.reads("12 best matches. Enter shows all.")
    assert owner.get("/search/suggestions?q=s", fragment=True).text.strip() == ""
    assert owner.page("/search/suggestions?q=zzz", fragment=True).reads("Nothing that you can see matches “zzz”.")


def test_what_is_typed_is_text_and_never_markup(app: Flask, people: People, signed_in: SignedIn) -> None:
    for path in ("/search", "/search/suggestions"):
        answer = signed_in("owner").get(path, query_string={"q": "<b>hi</b>"})
        assert answer.status_code == 200
        assert "<b>hi" not in answer.text
        assert signed_in("owner").get(f"{path}?q=a%00b").status_code == 422
