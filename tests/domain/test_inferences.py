"""The history of calls without a key; who sees it is told by tests/blueprints/api/test_prompts.py."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import inferences
from app.domain.errors import NotFound
from app.domain.inferences import LONGEST_KEPT
from app.extensions import db, transaction
from app.runtime.ids import new_id
from tests.house import People


def keep(person_id: str, **values: Any) -> str:
    figures = {"prompt_tokens": 1, "completion_tokens": 2, "cost_nano": 3, "status": 200}
    return transaction(lambda: inferences.keep(person_id, id=new_id(), model="small", **figures, **values)).id


def test_words_are_found_and_a_nul_does_no_harm(people: People) -> None:
    keep(people.owner.id)
    id = keep(people.owner.id, asked=[{"role": "user", "content": "50% off"}], output="yes\0")
    assert [row.id for row in db.session.scalars(inferences.owned_by(people.owner, "50%"))] == [id]
    found = inferences.get_own(people.owner, id)
    assert (found.asked, found.output) == ([{"role": "user", "content": "50% off"}], "yes\N{REPLACEMENT CHARACTER}")


def test_what_is_kept_is_bounded(people: People) -> None:
    found = inferences.get_own(
        people.owner, keep(people.owner.id, asked="x" * LONGEST_KEPT, output="y" * 2 * LONGEST_KEPT)
    )
    assert (found.asked, len(found.output or "")) == (None, LONGEST_KEPT)


def test_it_is_nobody_else_s_and_goes_when_its_owner_says(people: People) -> None:
    id, other = keep(people.owner.id), keep(people.stranger.id)
    with pytest.raises(NotFound):
        inferences.get_own(people.admin, id)
    transaction(lambda: inferences.clear(people.owner))
    assert [row.id for row in db.session.query(inferences.Inference)] == [other]
