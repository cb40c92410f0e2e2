"""Prices that hold, subscriptions through all their states, and keys' text."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import now
from app.domain import catalog, keys, subscriptions
from app.domain.errors import Conflict, Invalid, NotFound
from app.extensions import db, transaction
from app.runtime.key_text import is_well_formed, new_key
from app.workflows import catalog_changes
from tests.house import People, make_model


def test_the_newest_price_whose_time_has_come_holds(people: People) -> None:
    model = transaction(make_model, people.admin)
    assert transaction(catalog.set_price, model, by=None, price=model.price.decimals(), from_at=now()) is None
    later = now() + timedelta(hours=1)
    transaction(catalog.set_price, model, by=people.admin, price={"input_per_mtok": "3"}, from_at=later)
    assert model.price.input_per_mtok == 1_000_000_000
    assert model.price_at(later + timedelta(seconds=1)).input_per_mtok == 3_000_000_000
    with pytest.raises(Invalid):
        transaction(catalog.set_price, model, by=None, price={}, from_at=now() - timedelta(days=1))
    first = model.price.id
    transaction(catalog.update_model, model, by=people.admin, price={"input_per_mtok": "2"})
    assert model.price.input_per_mtok == 2_000_000_000
    assert db.session.get(catalog.Price, first).input_per_mtok == 1_000_000_000


@pytest.mark.parametrize("price", ["-1", "NaN", "Infinity", "1e500", "0.0000000001", "x", "9" * 50])
def test_a_price_that_is_not_exact_money_is_refused(people: People, price: str) -> None:
    with pytest.raises(Invalid) as refused:
        transaction(make_model, people.admin, price={"per_image": price})
    assert refused.value.field == "price.per_image"


def test_a_deployment_that_stays_keeps_its_id(people: People) -> None:
    model = transaction(make_model, people.admin)
    first = model.deployments[0]
    same = catalog.DeploymentSpec(provider_id=first.provider_id, upstream_model="echo", priority=5)
    more = catalog.DeploymentSpec(provider_id=first.provider_id, upstream_model="other")
    transaction(catalog.update_model, model, by=None, deployments=[same, more])
    db.session.refresh(model)
    assert [(one.upstream_model, one.id == first.id) for one in model.deployments] == [("other", False), ("echo", True)]


def test_hidden_models_show_to_their_subscribers_only(people: People) -> None:
    model = transaction(make_model, people.admin)
    transaction(subscriptions.request, people.owner, model, by=people.owner)
    transaction(catalog.update_model, model, by=None, status="hidden")
    assert catalog_changes.visible(people.owner, "small") is model
    assert catalog_changes.visible(people.auditor, "small") is model
    with pytest.raises(NotFound):
        catalog_changes.visible(people.stranger, "small")
    with pytest.raises(Invalid):
        transaction(subscriptions.request, people.stranger, model, by=people.stranger)


def test_a_subscription_moves_only_as_its_states_allow(people: People) -> None:
    model = transaction(make_model, people.admin, restricted=True)
    found, new = transaction(subscriptions.request, people.owner, model, by=people.owner, justification="why")
    assert (found.status, new) == ("pending", True)
    for decision in ("suspend", "resume"):
        with pytest.raises(Conflict):
            transaction(subscriptions.decide, found, decision, by=people.admin)
    transaction(subscriptions.decide, found, "deny", by=people.admin, reason="not now")
    with pytest.raises(Conflict):
        transaction(subscriptions.cancel, found, by=people.owner)
    second, new = transaction(subscriptions.request, people.owner, model, by=people.owner)
    assert (second.status, new) == ("pending", True)
    budget = {"limit": "3", "period": "month"}
    transaction(
        subscriptions.decide, second, "approve", by=people.admin, expires_at=now() + timedelta(days=1), budget=budget
    )
    transaction(subscriptions.decide, second, "suspend", by=people.admin)
    transaction(subscriptions.decide, second, "resume", by=people.admin)
    transaction(subscriptions.cancel, second, by=people.owner)
    db.session.refresh(second)
    steps = ["pending", "active", "suspended", "active", "cancelled"]
    assert [step.status for step in second.timeline] == steps
    assert [found.id for found in db.session.scalars(subscriptions.owned_by(people.owner))] == [second.id, found.id]


def test_what_is_over_expires(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    model = transaction(make_model, people.admin)
    found, _ = transaction(subscriptions.request, people.owner, model, by=people.owner)
    found_id = found.id

    def end_it() -> None:
        subscriptions.get_visible(people.owner, found_id).expires_at = now() - timedelta(seconds=1)

    transaction(end_it)
    assert db.session.execute(subscriptions.usable([people.owner.id])).all() == []
    assert transaction(subscriptions.expire_due) == 1
    assert found.status == "expired"
    assert transaction(subscriptions.expire_due) == 0


def test_removing_a_model_cancels_its_subscriptions_and_remembers_its_name(people: People) -> None:
    model = transaction(make_model, people.admin)
    found, _ = transaction(subscriptions.request, people.owner, model, by=people.owner)
    transaction(catalog_changes.delete, model, by=people.admin)
    db.session.refresh(found)
    assert (found.status, found.model_id, found.model_name) == ("cancelled", None, "small")
    transaction(make_model, people.admin)


def test_a_key_for_models_that_are_not_subscribed_is_refused(people: People) -> None:
    transaction(make_model, people.admin)
    with pytest.raises(Invalid) as refused:
        transaction(keys.create, people.owner, by=people.owner, name="a", models=["small"])
    assert refused.value.field == "models"


def test_every_new_key_is_well_formed_and_none_like_another() -> None:
    made = {new_key() for _ in range(1000)}
    assert len(made) == 1000
    assert all(is_well_formed(key) and len(key) == 49 for key in made)


@given(st.integers(3, 48), st.sampled_from("0aZ"))
def test_a_mistyped_key_is_noticed(position: int, sign: str) -> None:
    key = new_key()
    wrong = key[:position] + sign + key[position + 1 :]
    assert is_well_formed(wrong) == (wrong == key)


@given(st.text(max_size=80))
def test_no_other_text_is_a_key(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed("sk-" + text)
