"""The first steps of a new Portico: each is done when it is done, and they are gone when a priced model is served."""

from __future__ import annotations

import redis

from app.domain import invitations, providers
from app.domain.catalog import DeploymentSpec
from app.domain.person import Person
from app.extensions import db, transaction
from app.pages.first_steps import first_steps
from tests.blueprints.portal.conftest import tell
from tests.house import People, make_model


def done() -> list[str]:
    db.session.rollback()
    return [step.title for step in first_steps() if step.done]


def test_each_step_is_ticked_off_until_a_model_with_a_price_is_served(people: People, wire: redis.Redis) -> None:
    assert "Invite people" in done()  # the tests have several
    for other in (people.owner, people.stranger, people.auditor):
        transaction(lambda id=other.id: db.session.delete(db.session.get(Person, id)))
    assert done() == []
    one = transaction(providers.create, by=None, name="Lab", kind="vllm", config={"base_url": "http://127.0.0.1:9/v1"})
    assert done() == ["Add a provider"]
    assert first_steps()[1].href == f"/admin/providers/{one.id}#test"
    at = [DeploymentSpec(provider_id=one.id, upstream_model="m")]
    model = transaction(make_model, None, "small", price=None, deployments=at)
    assert done() == ["Add a provider", "Add a model"]
    tell(wire, model.deployments[0].id, answers=1)
    assert done() == ["Add a provider", "Test the provider", "Add a model"]
    transaction(invitations.invite, by=people.admin, link="http://localhost/{token}")
    assert done()[-1] == "Invite people"
    transaction(make_model, None, "priced", deployments=at)
    assert first_steps() == []
