"""Models: prices that hold from an instant on, deployments that keep their ids, and lists of what a provider serves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import LATEST, now
from app.domain import catalog, providers
from app.domain.catalog import DeploymentSpec, Model
from app.domain.changes import PENDING
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.prices import Price
from app.domain.providers import Provider
from app.extensions import db, transaction
from tests.conftest import SetClock
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
    assert db.session.get(Price, first).input_per_mtok == 1_000_000_000


def test_a_deployment_that_stays_keeps_its_id(people: People) -> None:
    model = transaction(make_model, people.admin)
    first = model.deployments[0]
    same = catalog.DeploymentSpec(provider_id=first.provider_id, upstream_model="echo", priority=5)
    more = catalog.DeploymentSpec(provider_id=first.provider_id, upstream_model="other")
    transaction(catalog.update_model, model, by=None, deployments=[same, more])
    db.session.refresh(model)
    assert [(one.upstream_model, one.id == first.id) for one in model.deployments] == [("other", False), ("echo", True)]


AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_price_holds_from_its_own_instant_on(people: People, set_clock: SetClock) -> None:
    set_clock(AT)
    model = transaction(make_model, people.admin)
    later = AT + timedelta(hours=1)
    transaction(catalog.set_price, model, by=None, price={"input_per_mtok": "3"}, from_at=later)
    transaction(catalog.set_price, model, by=None, price={"input_per_mtok": "4"}, from_at=later)
    transaction(catalog.set_price, model, by=None, price={"input_per_mtok": "5"}, from_at=later + timedelta(hours=1))
    assert [price.decimals()["input_per_mtok"] for price in model.planned_prices] == ["4", "5"]
    set_clock(later)
    assert model.price is not None and model.price.input_per_mtok == 4 * 10**9
    assert [price.decimals()["input_per_mtok"] for price in model.planned_prices] == ["5"]
    query = select(catalog.price_now("input_per_mtok")).select_from(Model)
    assert db.session.scalars(query).all() == [4 * 10**9], "SQL finds the same one"


@pytest.mark.parametrize("from_at", [AT - timedelta(seconds=2), LATEST])
def test_a_price_begins_neither_in_the_past_nor_beyond_all_calendars(
    people: People, set_clock: SetClock, from_at: datetime
) -> None:
    set_clock(AT)
    model = transaction(make_model, people.admin)
    with pytest.raises(Invalid) as refused:
        transaction(catalog.set_price, model, by=None, price={"input_per_mtok": "3"}, from_at=from_at)
    assert refused.value.field == "from"
    assert len(model.prices) == 1


def provider(name: str, status: str = "active") -> Provider:
    return transaction(providers.create, by=None, name=name, kind="echo", config={}, status=status)


def served(name: str, *by: Provider, **values: Any) -> Model:
    specs = [DeploymentSpec(provider_id=one.id, upstream_model="echo") for one in by]
    return transaction(make_model, None, name, **{"deployments": specs, **values})


def test_what_stops_with_a_provider_has_no_other_that_is_switched_on(people: People) -> None:
    one, two, off = provider("One"), provider("Two"), provider("Off", "disabled")
    served("alone", one)
    served("both", one, two)
    served("nearly", one, off)
    served("other", two)
    assert catalog.only_served_by(one) == ["alone", "nearly"]
    assert catalog.models_by_provider() == {
        one.id: ["alone", "both", "nearly"], two.id: ["both", "other"], off.id: ["nearly"],
    }  # fmt: skip
    assert {name: catalog.model(name).is_served for name in ("both", "nearly")} == {"both": True, "nearly": True}
    transaction(providers.switch, one, "disabled", by=None)
    dead = list(db.session.scalars(select(Model.name).where(~catalog.is_served()).order_by(Model.name)))
    assert dead == ["alone", "nearly"] == [name for name in catalog.names() if not catalog.model(name).is_served]


def test_a_list_of_models_is_narrowed_by_each_of_its_filters(people: People) -> None:
    one, two = provider("One"), provider("Two")
    served("a_1", one, capabilities=["chat"], display_name="First", restricted=True)
    served("b", two, capabilities=["embeddings"], description="Of the 100% kind", status="hidden", features=["tools"])

    def names(**filters: Any) -> list[str]:
        return [model.name for model in db.session.scalars(catalog.all_models(**filters))]

    assert names() == ["a_1", "b"]
    assert names(search="first") == names(search="A_") == ["a_1"]
    assert names(search="100%") == ["b"]
    assert names(search="%") == ["b"], "no text is a pattern"
    assert names(status="hidden") == names(capability="embeddings") == names(restricted=False) == ["b"]
    assert names(restricted=True) == names(provider_id=one.id) == ["a_1"]
    assert [model.name for model in db.session.scalars(catalog.offered_models())] == ["a_1"]
    wordless = select(Model.name).where(catalog.has_no_word(Model.features))
    assert db.session.scalars(wordless).all() == ["a_1"]


def test_weights_are_published_when_one_of_them_changed(people: People) -> None:
    one, two = provider("One"), provider("Two")
    model = served("m", one, two)
    mine, other = (next(d for d in model.deployments if d.provider_id == p.id) for p in (one, two))

    def weigh(id: str, *rank: int) -> tuple[int, bool]:
        def work() -> tuple[int, bool]:
            changed = catalog.weigh(one, by=people.admin, wanted={id: rank})  # type: ignore[dict-item]
            return changed, ("directory", "") in db.session.info.get(PENDING, ())

        return transaction(work)

    assert weigh(mine.id, 5, 7) == (1, True)
    assert weigh(mine.id, 5, 7) == (0, False)
    assert weigh(mine.id, 1000, 0) == (1, True)
    with pytest.raises(NotFound):
        weigh(other.id, 1, 1)
    for rank, field in (((-1, 1), "priority"), ((1001, 1), "priority"), ((1, -1), "weight"), ((1, 1001), "weight")):
        with pytest.raises(Invalid) as refused:
            weigh(mine.id, *rank)
        assert refused.value.field == f"{mine.id}.{field}"
    assert (mine.priority, mine.weight) == (1000, 0)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a//b", "a/", "ä", "a" * 201, "a\n"])
def test_a_name_that_no_address_could_hold_is_refused(people: People, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        transaction(make_model, None, name)
    assert refused.value.field == "name"


def test_a_name_is_taken_once(people: People) -> None:
    transaction(make_model, None, "lab/small:1@x+y")
    with pytest.raises(Conflict):
        transaction(make_model, None, "lab/small:1@x+y")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"capabilities": []}, "capabilities"),
        ({"capabilities": ["chat", "flying"]}, "capabilities"),
        ({"features": [" "]}, "features"),
        ({"features": ["x"] * 51}, "features"),
        ({"status": "broken"}, "status"),
        ({"display_name": "x" * 201}, "display_name"),
        ({"deployments": [DeploymentSpec(provider_id="none", upstream_model="x")]}, "deployments[0].provider_id"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(people: People, values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        transaction(make_model, None, **values)
    assert refused.value.field == field


def test_a_deployment_is_listed_once(people: People) -> None:
    one = provider("One")
    with pytest.raises(Invalid) as refused:
        served("m", one, one)
    assert refused.value.field == "deployments[1]"


def test_a_status_tells_since_when_it_holds(people: People, set_clock: SetClock) -> None:
    model = transaction(make_model, people.admin)
    since = model.status_at
    assert since is not None
    set_clock(since.replace(microsecond=0) + timedelta(days=1))
    transaction(catalog.update_model, model, by=None, description="Other words")
    assert model.status_at == since
    transaction(catalog.update_model, model, by=None, status="deprecated")
    assert model.status_at is not None and model.status_at > since


def test_a_name_belongs_to_one_model_also_as_another_name(people: People) -> None:
    one = transaction(make_model, None, "one", aliases=["first", "lab/first"])
    two = transaction(make_model, None, "two")
    assert catalog.find_called("lab/first") is one and catalog.find_called("one") is one
    assert catalog.find_called("lab") is None
    for taken in ("first", "one", "two"):
        with pytest.raises(Conflict) as refused:
            transaction(catalog.update_model, two, by=None, aliases=["free", taken])
        assert refused.value.field == "aliases"
        db.session.rollback()
    with pytest.raises(Conflict):
        transaction(make_model, None, "first")
    with pytest.raises(Invalid) as unusable:
        transaction(catalog.update_model, two, by=None, aliases=["a b"])
    assert unusable.value.field == "aliases"
    transaction(catalog.update_model, one, by=None, aliases=["first"])
    transaction(catalog.update_model, two, by=None, aliases=["lab/first"])
    assert catalog.find_called("lab/first") is two
