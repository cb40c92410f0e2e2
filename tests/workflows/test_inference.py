"""Calls from the portal's side: who pays, what is refused, and that nothing is called that is not published."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import current, store
from app.clock import now, to_ms
from app.domain import subscriptions, teams
from app.domain.catalog import Model
from app.domain.errors import Invalid
from app.extensions import transaction
from app.metering import scopes
from app.workflows import inference, publication
from tests.house import People, make_model, metered  # noqa: F401


@pytest.fixture
def small(people: People, metered: None) -> Model:  # noqa: F811
    return transaction(make_model)


def test_a_person_pays_by_their_own_subscription_and_a_team_by_its(people: People, small: Model) -> None:
    team = transaction(lambda: teams.create(by=people.owner, name="Research"))
    mine, _ = transaction(lambda: subscriptions.request(people.owner, small, by=people.owner))
    theirs, _ = transaction(lambda: subscriptions.request(people.owner, small, by=people.owner, team=team))
    chains = {
        mine.id: scopes.chain_of(inference.caller_of(people.owner), mine.id),
        theirs.id: scopes.chain_of(inference.caller_of(people.owner, team), theirs.id),
    }
    assert [scope.kind for scope in chains[mine.id]] == ["subscription", "user", "organisation"]
    assert [scope.kind for scope in chains[theirs.id]] == ["subscription", "member", "team", "organisation"]
    assert inference.caller_of(people.owner).models == {"small": mine.id}
    assert inference.caller_of(people.owner, team).models == {"small": theirs.id}
    assert inference.caller_of(people.stranger).models == {}


def test_an_end_of_access_holds_here_too(people: People, small: Model) -> None:
    end = now() + timedelta(days=1)
    found, _ = transaction(lambda: subscriptions.request(people.owner, small, by=people.owner))
    transaction(lambda: setattr(found, "expires_at", end))
    assert inference.caller_of(people.owner).ends_ms == {"small": to_ms(end)}


def test_a_call_without_access_or_before_anything_is_published_is_refused(people: People, small: Model) -> None:
    caller = inference.caller_of(people.owner)
    current.redis().delete(store.DIRECTORY, store.DIRECTORY_VERSION)
    asked = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
    with pytest.raises(inference.Refused) as refused:
        inference.chat(caller, asked)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
    publication.publish_all()
    with pytest.raises(inference.Refused) as refused:
        inference.chat(caller, asked)
    assert (refused.value.status, refused.value.code, refused.value.field) == (404, "model_not_found", "model")


def test_an_answer_comes_with_what_is_booked_of_it(people: People, small: Model) -> None:
    transaction(lambda: subscriptions.request(people.owner, small, by=people.owner))
    publication.publish_all()
    asked = {"model": "small", "messages": [{"role": "user", "content": "one two"}], "stream": True}
    answered = inference.chat(inference.caller_of(people.owner), asked)
    assert answered.answer["choices"][0]["message"]["content"] == "one two"
    assert (answered.event.request_id, answered.event.prompt_tokens, answered.event.stream) == (answered.id, 2, False)
    assert answered.event.cost_nano > 0


def test_a_test_needs_no_subscription_and_is_charged_to_the_admin(people: People, small: Model) -> None:
    publication.publish_all()
    answered = inference.test(people.admin, "small", ["chat"], "one two")
    assert answered.text == "one two"
    event = answered.event
    assert (event.person_id, event.subscription_id, event.key_id) == (people.admin.id, None, None)
    assert [scope[0] for scope in event.scopes] == ["user", "organisation"]
    assert event.cost_nano > 0


def test_a_model_that_embeds_is_tested_by_an_embedding_and_others_not_at_all(people: People, small: Model) -> None:
    transaction(make_model, None, "vectors", capabilities=["embeddings"])
    publication.publish_all()
    assert inference.test(people.admin, "vectors", ["embeddings"], "one two").event.endpoint == "/v1/embeddings"
    with pytest.raises(Invalid):
        inference.test(people.admin, "vectors", ["speech"], "one two")
