"""Prompts and their versions; whose they are is told by tests/blueprints/api/test_prompts.py."""

from __future__ import annotations

import pytest

from app.domain import identity, prompts, teams
from app.domain.changes import PendingChange
from app.domain.errors import Conflict, Invalid
from app.domain.prompts import MOST_KEPT, Prompt, PromptVersion
from app.extensions import db, transaction
from tests.house import People


def make(people: People, **values: str) -> Prompt:
    return transaction(lambda: prompts.create(by=people.owner, **{"name": "a", "template": "{{x}}", **values}))


def test_a_change_of_the_text_makes_a_version_that_stays(people: People) -> None:
    made = make(people)
    transaction(lambda: prompts.update(made, by=people.owner, description="Words"))
    transaction(lambda: prompts.update(made, by=people.owner, template="{{x}}"))
    assert made.version == 1
    transaction(lambda: prompts.update(made, by=people.owner, model="small"))
    assert [row.version for row in db.session.scalars(prompts.versions_of(made))] == [2, 1]
    assert (prompts.version_of(made).model, prompts.version_of(made, 1).model) == ("small", None)
    with pytest.raises(Invalid):
        prompts.version_of(made, 3)


def test_the_gateway_is_told_of_texts_and_not_of_names(people: People) -> None:
    made = make(people)
    db.session.query(PendingChange).delete()
    db.session.commit()
    transaction(lambda: prompts.update(made, by=people.owner, name="b"))
    assert db.session.query(PendingChange).filter_by(kind="prompt").count() == 0


def test_what_is_kept_is_bounded(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_KEPT > prompts.LONGEST_TEMPLATE
    monkeypatch.setattr(prompts, "MOST_KEPT", 12)
    made = make(people)
    transaction(lambda: prompts.update(made, by=people.owner, template="1234567"))
    with pytest.raises(Conflict):
        make(people, name="b", template="1")
    with pytest.raises(Conflict):
        transaction(lambda: prompts.update(made, by=people.owner, template="x"))


def test_prompts_leave_with_their_person_and_a_team_s_stay(people: People) -> None:
    team = transaction(lambda: teams.create(by=people.owner, name="Research"))
    transaction(lambda: teams.put_member(team, people.stranger, by=people.owner, role="member"))
    transaction(lambda: prompts.create(by=people.stranger, name="a", template="b", team_id=team.id))
    transaction(lambda: prompts.create(by=people.stranger, name="a", template="b"))
    db.session.delete(identity.named("stranger"))
    db.session.flush()
    assert [one.team_id for one in db.session.query(Prompt)] == [team.id]
    assert db.session.query(PromptVersion).count() == 1
    db.session.rollback()
