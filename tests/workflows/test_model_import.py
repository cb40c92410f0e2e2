"""An import publishes what was ticked, filled in from the catalogue, all of it or nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from app.domain import catalog, providers
from app.domain.audit import AuditEntry
from app.domain.catalog import Model
from app.domain.errors import Conflict, Invalid
from app.extensions import db, transaction
from app.providers.model_list import ListedModel
from app.workflows import model_import
from app.workflows.model_import import Draft, Refused
from tests.house import People, make_model


def draft(id: str, kind: str = "openai", currency: str = "USD", **told: Any) -> Draft:
    return model_import.draft(kind, ListedModel(id, **told), currency=currency)


def provider() -> str:
    return transaction(
        providers.create, by=None, name="Upstream", kind="openai", config={"base_url": "http://127.0.0.1:9/v1"}
    ).id


def publish(id: str, drafts: list[Draft], people: People, **how: Any) -> list[str]:
    how = {"status": "active", "restricted": False} | how
    made = transaction(lambda: model_import.publish(providers.get(id), drafts, by=people.admin, **how))
    return [one.name for one in made]


def count() -> int:
    return db.session.scalar(select(func.count()).select_from(Model)) or 0


def test_what_is_known_fills_a_draft_in() -> None:
    found = draft("gpt-4o")
    assert (found.name, found.capability, found.context_window, found.max_output_tokens) == (
        "gpt-4o",
        "chat",
        128_000,
        16_384,
    )
    assert found.price["input_per_mtok"] == "2.5" and "tools" in found.features and found.bands["tiers"]["priority"]


def test_the_provider_knows_its_own_limits_best() -> None:
    assert draft("gpt-4o", context_window=32_000).context_window == 32_000
    local = draft("Qwen/Qwen3-8B", "vllm", context_window=40_960)
    assert (local.context_window, local.price, local.name) == (40_960, {}, "Qwen/Qwen3-8B")


def test_a_list_may_tell_what_a_model_can_do() -> None:
    told = draft("brand-new", "gemini", capability="embeddings", features=("reasoning",))
    assert (told.capability, told.features) == ("embeddings", ("reasoning",))
    known = draft("gpt-4o", capability="embeddings", features=("reasoning", "tools"))
    assert known.capability == "chat" and set(known.features) == {*draft("gpt-4o").features, "reasoning", "tools"}


def test_prices_are_not_filled_in_for_another_currency() -> None:
    found = draft("gpt-4o", currency="EUR")
    assert (found.price, found.bands, found.context_window) == ({}, {}, 128_000)


def test_a_name_that_no_model_can_have_is_left_to_the_admin() -> None:
    assert draft("accounts/fireworks/models/größe").name == ""


def test_all_that_was_ticked_is_published_in_one_step(people: People) -> None:
    id = provider()
    names = publish(id, [draft("gpt-4o"), draft("text-embedding-3-small")], people, restricted=True, status="hidden")
    assert names == ["gpt-4o", "text-embedding-3-small"]
    model = catalog.model("gpt-4o")
    assert (model.restricted, model.status, model.capabilities) == (True, "hidden", ["chat"])
    assert [(one.provider_id, one.upstream_model) for one in model.deployments] == [(id, "gpt-4o")]
    assert model.price is not None
    told = model.price.decimals()
    assert (told["input_per_mtok"], told["tiers"]["priority"]["input_per_mtok"]) == ("2.5", "4.25")
    acts = select(func.count()).select_from(AuditEntry).where(AuditEntry.action == "model.create")
    assert db.session.scalar(acts) == 2


def test_one_that_cannot_be_keeps_all_from_being_published(people: People) -> None:
    id = provider()
    transaction(make_model, people.admin, "gpt-4o")
    before = count()
    drafts = [draft("gpt-4o-mini"), draft("gpt-4o"), msgspec.structs.replace(draft("o3"), name="a b"),
              msgspec.structs.replace(draft("o1"), price={"input_per_mtok": "-1"})]  # fmt: skip
    with pytest.raises(Refused) as refused:
        publish(id, drafts, people)
    faults = refused.value.faults
    assert {place: (type(one), one.field) for place, one in faults.items()} == {
        1: (Conflict, "name"), 2: (Invalid, "name"), 3: (Invalid, "price.input_per_mtok"),
    }  # fmt: skip
    db.session.rollback()
    assert count() == before and catalog.find_model("gpt-4o-mini") is None


def test_two_of_one_name_are_refused(people: People) -> None:
    drafts = [draft("gpt-4o"), msgspec.structs.replace(draft("gpt-4o-mini"), name="gpt-4o")]
    with pytest.raises(Refused) as refused:
        publish(provider(), drafts, people)
    assert list(refused.value.faults) == [1]


def test_a_model_without_any_price_has_none(people: People) -> None:
    publish(provider(), [draft("llama", "vllm")], people)
    assert catalog.model("llama").price is None
