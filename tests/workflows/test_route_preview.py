"""What a request would meet: every way to its model in the order it would be tried, each with its reason."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from app import providers as adapters
from app.domain import catalog, providers
from app.domain.catalog import DeploymentSpec
from app.domain.errors import Invalid
from app.domain.providers import Endpoint, Provider
from app.extensions import db, transaction
from app.workflows import route_preview
from tests.house import People, make_model


@pytest.fixture
def ways(people: People) -> dict[str, Provider]:
    """A model at four providers: `light` and `heavy` share priority 0, `later` has 1, `off` is disabled."""
    made = {
        name: transaction(providers.create, by=None, name=name, kind="echo", config={})
        for name in ("light", "heavy", "later", "off")
    }
    transaction(providers.switch, made["off"], "disabled", by=None)
    ranks = {"light": (0, 1), "heavy": (0, 3), "later": (1, 1), "off": (0, 9)}
    specs = [
        DeploymentSpec(provider_id=made[name].id, upstream_model=name, priority=priority, weight=weight)
        for name, (priority, weight) in ranks.items()
    ]
    transaction(make_model, None, "small", deployments=specs)
    return made


def chat(path: str = "/v1/chat/completions") -> Endpoint:
    return db.session.scalars(select(Endpoint).where(Endpoint.path == path)).one()


def order(**request: Any) -> list[tuple[str, bool]]:
    found = route_preview.preview(chat(), {"model": "small", **request})
    return [(way.provider, way.usable) for way in found.candidates]


def test_ways_are_tried_by_priority_then_weight_and_what_cannot_be_used_comes_last(ways: dict[str, Provider]) -> None:
    found = route_preview.preview(chat(), {"model": "small"})
    assert [way.provider for way in found.candidates] == ["heavy", "light", "later", "off"]
    assert [way.reason for way in found.candidates] == [
        "Used in place 1.", "Used in place 2.", "Used in place 3.", "Its provider is disabled.",
    ]  # fmt: skip
    assert found.deployment is found.candidates[0]
    assert (found.result, "3 of 4" in found.reason) == ("served", True)


def test_a_request_steers_to_one_and_falls_back_to_others(ways: dict[str, Provider]) -> None:
    assert order(provider="later")[0] == ("later", True)
    assert not any(usable for _, usable in order(provider="later")[1:])
    assert order(provider=ways["light"].id, fallback_providers=["later"])[:2] == [("light", True), ("later", True)]
    assert order(fallback_providers=["heavy"])[:3] == [("light", True), ("later", True), ("heavy", True)]
    alone = route_preview.preview(chat(), {"model": "small", "provider": "light"})
    assert "weight" not in alone.reason, "nobody shares with the one that is named"
    for gone in ("off", "none"):
        assert route_preview.preview(chat(), {"model": "small", "provider": gone}).result == "no_deployment"


def test_a_path_uses_only_its_own_providers(ways: dict[str, Provider]) -> None:
    transaction(providers.update_endpoint, chat(), by=None, providers=[ways["later"].id])
    found = route_preview.preview(chat(), {"model": "small"})
    assert found.deployment is not None and found.deployment.provider == "later"
    assert [way.reason for way in found.candidates if way.provider == "light"] == [
        "/v1/chat/completions may not use its provider."
    ]


@pytest.mark.parametrize(
    ("path", "model", "result"),
    [
        ("/v1/chat/completions", "none", "model_not_found"),
        ("/v1/chat/completions", "disabled", "model_not_found"),
        ("/v1/embeddings", "small", "not_capable"),
        ("/v1/models", "small", "served"),
        ("/v1/models", None, "served"),
    ],
)
def test_what_is_not_served_says_why(ways: dict[str, Provider], path: str, model: str | None, result: str) -> None:
    transaction(make_model, None, "disabled", status="disabled")
    found = route_preview.preview(chat(path), {} if model is None else {"model": model})
    assert (found.result, found.deployment, found.candidates) == (result, None, [])
    transaction(providers.update_endpoint, chat(path), by=None, active=False)
    off = route_preview.preview(chat(path), {} if model is None else {"model": model})
    assert off.result == "endpoint_disabled"


def test_a_provider_that_cannot_do_it_is_no_way(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters.adapter("echo"), "abilities", frozenset(("chat",)))
    transaction(make_model, None, "vectors", capabilities=["embeddings"])
    found = route_preview.preview(chat("/v1/embeddings"), {"model": "vectors"})
    assert found.result == "no_deployment"
    assert [(way.usable, "embeddings" in way.reason) for way in found.candidates] == [(False, True)]
    assert catalog.model("vectors").is_served


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": "small", "provider": 5}, "provider"),
        ({"model": "small", "fallback_providers": "light"}, "fallback_providers"),
        ({"model": "small", "fallback_providers": [5]}, "fallback_providers"),
    ],
)
def test_what_is_no_request_is_refused_by_the_member_at_fault(
    people: People, request_: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        route_preview.preview(chat(), request_)
    assert refused.value.field == f"request.{field}"


def test_another_name_of_a_model_leads_to_it(ways: dict[str, Provider]) -> None:
    transaction(catalog.update_model, catalog.model("small"), by=None, aliases=["gpt-4"])
    found = route_preview.preview(chat(), {"model": "gpt-4"})
    assert found.result == "served" and "heavy serves small as heavy" in found.reason
