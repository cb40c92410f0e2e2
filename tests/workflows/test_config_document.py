"""The document of a configuration: the same bytes for the same state, no secret, and readable differences."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.domain import catalog, providers
from app.domain.catalog import DeploymentSpec
from app.domain.errors import Invalid
from app.extensions import db, transaction
from app.workflows import config_document
from app.workflows.config_document import counts, differences, present, read, switched_off, text
from tests.house import People, make_model

SECRET = "sk-canary-of-a-provider-1234"


def furnish(people: People) -> None:
    """A provider with a secret, an echo, and a model at both."""

    def work() -> None:
        config = {"base_url": "https://api.example.com/v1", "api_key": SECRET, "timeout_s": 30}
        upstream = providers.create(by=people.admin, name="zeta", kind="openai", config=config)
        make_model(people.admin, "small", price={"input_per_mtok": "1", "tiers": {"batch": {"input_per_mtok": "0.50"}}})
        model = catalog.model("small")
        specs = [DeploymentSpec(provider_id=one.provider_id, upstream_model="echo") for one in model.deployments]
        specs.append(DeploymentSpec(provider_id=upstream.id, upstream_model="gpt", priority=1, weight=3))
        catalog.update_model(model, by=people.admin, deployments=specs, query_instruction="query: {text}")
        endpoint = db.session.scalars(providers.all_endpoints()).first()
        assert endpoint is not None
        providers.update_endpoint(endpoint, by=people.admin, providers=[upstream.id])

    transaction(work)


def test_a_document_has_everything_by_name_in_a_stable_order_and_no_secret(people: People) -> None:
    furnish(people)
    document = present()
    assert list(document) == ["portico", "providers", "models", "endpoints", "routing"]
    assert [one["name"] for one in document["providers"]] == ["Echo", "zeta"]
    zeta, small = document["providers"][1], document["models"][0]
    assert zeta == {
        "config": {"base_url": "https://api.example.com/v1", "timeout_s": 30},
        "name": "zeta", "provider": "openai", "secrets": ["api_key"], "status": "active", "type": "api",
    }  # fmt: skip
    assert list(zeta) == sorted(zeta) and list(small) == sorted(small)
    assert small["price"] == {"input_per_mtok": "1", "tiers": {"batch": {"input_per_mtok": "0.5"}}}
    assert [(one["provider"], one["weight"]) for one in small["deployments"]] == [("Echo", 1), ("zeta", 3)]
    assert small["embedding_instructions"] == {"passage": None, "query": "query: {text}"}
    assert document["endpoints"][0]["mapping"] == {"providers": ["zeta"]}
    written = text(document)
    assert written == text(present()) and json.loads(written) == document
    assert SECRET not in written and zeta["name"] in written
    assert not {"id", "created_at", "updated_at"} & set(written.split('"'))


def test_what_is_written_can_be_read(people: People) -> None:
    furnish(people)
    wanted = read(json.loads(text(present())))
    assert len(wanted.providers or ()) == 2


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "config"),
        ({}, "config.portico"),
        ({"portico": 2}, "config.portico"),
        ({"portico": 1, "keys": []}, "config.keys"),
        ({"portico": 1, "providers": [{"provider": "echo"}]}, "config.providers[0].name"),
        ({"portico": 1, "providers": [{"name": "a", "id": "1"}]}, "config.providers[0].id"),
        ({"portico": 1, "providers": [{"name": "a"}, {"name": "A"}]}, "config.providers[1].name"),
        ({"portico": 1, "models": [{"name": "m"}, {"name": "m"}]}, "config.models[1].name"),
        ({"portico": 1, "models": [{"name": "m", "price": {"input": "1"}}]}, "config.models[0].price.input"),
        ({"portico": 1, "models": [{"name": "m", "price": {"input_per_mtok": 1.5}}]}, "config.models[0].price.input_per_mtok"),
        ({"portico": 1, "models": [{"name": "m", "deployments": [{"provider": "p"}]}]},
         "config.models[0].deployments[0].upstream_model"),
        ({"portico": 1, "endpoints": [{"path": "/v1/models", "active": "yes"}]}, "config.endpoints[0].active"),
    ],
)  # fmt: skip
def test_a_document_that_does_not_fit_is_refused_with_the_place(document: Any, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(document)
    assert refused.value.field == field


def test_differences_tell_each_value_by_its_path(people: People) -> None:
    furnish(people)
    before, after = present(), json.loads(text(present()))
    assert differences(before, after) == []
    after["providers"][0]["name"] = "Other"
    after["models"][0]["price"]["tiers"]["batch"]["input_per_mtok"] = "2"
    after["models"][0]["deployments"][1]["weight"] = 5
    after["routing"]["default_model"] = "small"
    found = differences(before, after)
    assert [(one.act, one.kind, one.name) for one in found] == [
        ("delete", "provider", "Echo"),
        ("create", "provider", "Other"),
        ("update", "model", "small"),
        ("update", "routing", "routing"),
    ]
    assert [(one.path, one.before, one.after) for one in found[2].fields] == [
        ("deployments[zeta/gpt].weight", 3, 5),
        ("price.tiers.batch.input_per_mtok", "0.5", "2"),
    ]
    told = counts(found)
    assert (told.create, told.update, told.delete) == (1, 2, 1)


def test_what_a_target_does_not_hold_is_switched_off(people: People) -> None:
    furnish(people)
    document = present()
    target = {**document, "providers": [], "models": [], "endpoints": document["endpoints"][1:]}
    off = switched_off(document, target)
    assert {one["status"] for one in (*off["providers"], *off["models"])} == {"disabled"}
    assert [one["active"] for one in off["endpoints"]].count(False) == 1
    assert list(off) == list(document)


def test_present_is_read_in_few_queries_however_many_models_there_are(people: People) -> None:
    from sqlalchemy import event

    def queries() -> int:
        asked: list[str] = []
        listen = lambda *told: asked.append(told[2])  # noqa: E731
        event.listen(db.engine, "before_cursor_execute", listen)
        db.session.rollback()
        config_document.present()
        event.remove(db.engine, "before_cursor_execute", listen)
        return len(asked)

    transaction(make_model, people.admin, "one")
    few = queries()
    for number in range(5):
        transaction(make_model, people.admin, f"more-{number}")
    assert queries() == few
