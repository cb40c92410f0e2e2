"""The pages of prompts: made, changed, compared, used and deleted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.domain import prompts
from app.domain.prompts import Prompt
from app.extensions import transaction
from tests.blueprints.portal.conftest import Browser
from tests.house import People
from tests.page import read

Visit = Callable[[str], Browser]


@pytest.fixture
def made(people: People) -> Prompt:
    made = transaction(lambda: prompts.create(by=people.owner, name="Letters", template="Dear {{name}},\nhello."))
    return transaction(lambda: prompts.update(made, by=people.owner, template="Dear {{name}},\ngood day."))


def test_a_prompt_is_made_from_one_to_begin_with(signed_in: Visit) -> None:
    owner = signed_in("owner")
    assert owner.page("/prompts").empty
    page = owner.page("/prompts/new?from=translate")
    assert "{{language}}" in page.field("Template").value
    sent = page.form("/prompts").sends.to_dict(flat=True)
    answer = owner.post("/prompts", **sent)
    assert answer.status_code == 303
    row = owner.page("/prompts").row("Translate")
    assert (row.cell("Variables").text, row.cell("Version").text) == ("language, text", "1")
    again = owner.post("/prompts", **sent)
    assert again.status_code == 422 or again.status_code == 409
    assert "already a prompt named Translate" in read(again).errors["Name"]


def test_a_change_makes_a_version_whose_difference_is_shown(signed_in: Visit, made: Prompt) -> None:
    owner = signed_in("owner")
    path = f"/prompts/{made.id}"
    assert "+ good day." in owner.get(path).text and "- hello." in owner.get(path).text
    assert owner.post(path, name="Letters", template="Hi {{name}}").status_code == 303
    assert "+ Hi {{name}}" in owner.get(path).text
    assert "+ good day." in owner.get(f"{path}?version=2").text
    assert owner.post(path, name="", template="a").status_code == 422


def test_two_who_change_a_prompt_at_once_are_told(signed_in: Visit, made: Prompt, people: People) -> None:
    owner = signed_in("owner")
    path = f"/prompts/{made.id}"
    sent = owner.page(path).form(path).sends.to_dict(flat=True)
    transaction(lambda: prompts.update(made, by=people.owner, name="Others"))
    answer = owner.post(path, **{**sent, "name": "Mine"})
    assert answer.status_code == 409
    assert "Others" in answer.text


def test_a_prompt_leaves_when_that_is_confirmed(signed_in: Visit, made: Prompt) -> None:
    owner = signed_in("owner")
    path = f"/prompts/{made.id}/deletion"
    assert "refused immediately" in owner.get(path).text
    assert owner.post(path).status_code == 303
    assert owner.get(f"/prompts/{made.id}").status_code == 404
