"""Importing and activating configurations: all or nothing, twice is once, and one activation leads back."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from app import current
from app.domain import audit, catalog, providers, saved_configs, subscriptions
from app.domain.audit import AuditEntry
from app.domain.errors import Conflict, DomainError, Invalid
from app.domain.providers import Provider
from app.extensions import db, transaction
from app.workflows import config_changes
from app.workflows.config_changes import Outcome, activate, effect_of, import_document, save
from app.workflows.config_document import present
from tests.house import People, make_model
from tests.workflows.test_config_document import SECRET, furnish

ORIGIN = "https://api.example.com/v1"
WHOLE = {
    "portico": 1,
    "providers": [
        {"name": "Upstream", "provider": "openai", "config": {"base_url": ORIGIN, "api_key_env": "UPSTREAM_KEY"}},
        {"name": "Second", "provider": "openai", "config": {"base_url": ORIGIN}, "secrets": ["api_key"]},
    ],
    "models": [
        {
            "name": "lab/small", "capabilities": ["chat", "embeddings"], "aliases": ["tiny"], "price": {"input_per_mtok": "0.10"},
            "deployments": [{"provider": "upstream", "upstream_model": "gpt"}],
            "embedding_instructions": {"query": "query: {text}"},
        }
    ],
    "endpoints": [{"path": "/v1/embeddings", "active": False, "mapping": {"providers": ["Upstream"]}}],
}  # fmt: skip


def whole(**more: Any) -> dict[str, Any]:
    return copy.deepcopy(WHOLE) | more


def acts(outcome: Outcome) -> list[tuple[str, str]]:
    return [(one.act, one.name) for one in outcome.changes]


def provider(name: str) -> Provider:
    return db.session.execute(select(Provider).where(Provider.name == name)).scalar_one()


def test_an_import_makes_what_the_document_names_and_twice_is_once(people: People) -> None:
    outcome = import_document(whole(), by=people.admin)
    assert acts(outcome) == [
        ("create", "Second"),
        ("create", "Upstream"),
        ("create", "lab/small"),
        ("update", "/v1/embeddings"),
    ]
    assert outcome.previous_id and not outcome.dry_run
    assert [(one.provider, one.member) for one in outcome.missing_secrets] == [("Second", "api_key")]
    assert (provider("Second").status, provider("Upstream").status) == ("disabled", "active")
    model = catalog.model("lab/small")
    assert (model.query_instruction, model.aliases) == ("query: {text}", ["tiny"])
    entry = db.session.scalars(audit.entries(action="config.import")).one()
    assert entry.detail["counts"] == {"create": 3, "update": 1, "delete": 0}
    entries = db.session.query(AuditEntry).count()
    again = import_document(whole(), by=people.admin)
    assert (again.changes, again.previous_id) == ([], None)
    assert db.session.query(AuditEntry).count() == entries, "nothing was written"
    assert import_document(present(), by=people.admin).changes == []


def test_a_dry_run_tells_the_same_and_changes_nothing(people: People) -> None:
    before = present()
    tried = import_document(whole(), by=people.admin, dry_run=True)
    assert (tried.dry_run, tried.previous_id, present()) == (True, None, before)
    done = import_document(whole(), by=people.admin)
    assert (tried.changes, tried.counts) == (done.changes, done.counts)


def test_what_a_document_does_not_name_stays(people: People) -> None:
    furnish(people)
    partly = {"portico": 1, "models": [{"name": "small", "price": {"input_per_mtok": "7"}}]}
    outcome = import_document(partly, by=people.admin)
    [change] = outcome.changes
    assert {one.path for one in change.fields} == {"price.input_per_mtok", "price.tiers.batch.input_per_mtok"}
    assert len(catalog.model("small").deployments) == 2


def test_pruning_deletes_what_the_sections_of_a_document_do_not_name(people: People) -> None:
    furnish(people)
    transaction(make_model, people.admin, "old")
    kept = whole(models=[*WHOLE["models"], {"name": "small"}])  # type: ignore[misc]
    with pytest.raises(Conflict):  # Echo and zeta still serve small
        import_document(kept, by=people.admin, prune=True)
    assert catalog.find_model("old") is not None, "all or nothing"
    outcome = import_document(whole(), by=people.admin, prune=True)
    assert {name for act, name in acts(outcome) if act == "delete"} == {"Echo", "zeta", "old", "small"}
    assert import_document(whole(), by=people.admin, prune=True).changes == []
    only_models = {"portico": 1, "models": WHOLE["models"]}
    assert import_document(only_models, by=people.admin, prune=True).changes == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"providers": [{"name": "New"}]}, "config.providers[0].provider"),
        ({"providers": [{"name": "New", "provider": "none"}]}, "config.providers[0].provider"),
        ({"providers": [{"name": "New", "provider": "openai", "config": {"base_url": "ftp://x"}}]},
         "config.providers[0].config.base_url"),
        ({"providers": [{"name": "New", "provider": "echo", "secrets": ["api_key"]}]}, "config.providers[0].secrets"),
        ({"models": [{"name": "m", "deployments": [{"provider": "gone", "upstream_model": "x"}]}]},
         "config.models[0].deployments[0].provider"),
        ({"models": [{"name": "m"}, {"name": "n", "aliases": ["m"]}]}, "config.models[1].aliases"),
        ({"models": [{"name": "a b"}]}, "config.models[0].name"),
        ({"models": [{"name": "m", "price": {"input_per_mtok": "much"}}]}, "config.models[0].price.input_per_mtok"),
        ({"endpoints": [{"path": "/v1/none"}]}, "config.endpoints[0].path"),
        ({"endpoints": [{"path": "/v1/models", "mapping": {"providers": ["gone"]}}]},
         "config.endpoints[0].mapping.providers[0]"),
        ({"routing": {"default_model": "m"}}, "config.routing.default_model"),
    ],
)  # fmt: skip
def test_a_document_that_does_not_fit_changes_nothing(people: People, change: dict[str, Any], field: str) -> None:
    before = present()
    with pytest.raises(DomainError) as refused:
        import_document(whole() | change, by=people.admin)
    assert (refused.value.field, present()) == (field, before)


def test_the_default_model_comes_with_a_configuration_unless_the_settings_file_decides_it(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "lab/small"
    document = whole() | {"routing": {"default_model": name}}
    assert ("update", "routing") in acts(import_document(document, by=people.admin, dry_run=True))
    assert current.config().gateway.default_model is None, "a dry run leaves nothing"
    outcome = import_document(document, by=people.admin)
    assert current.config().gateway.default_model == name == present()["routing"]["default_model"]
    assert outcome.previous_id
    previous = saved_configs.get(outcome.previous_id)
    assert [change.kind for change in effect_of(previous)][-1] == "routing"
    transaction(activate, previous, by=people.admin)
    assert current.config().gateway.default_model is None
    decided = msgspec.structs.replace(current.config(), decided={"gateway.default_model": "file"})
    monkeypatch.setattr(current, "config", lambda: decided)
    with pytest.raises(DomainError) as refused:
        import_document(document, by=people.admin)
    assert (refused.value.field, getattr(refused.value, "code", None)) == (
        "config.routing.default_model",
        "set_elsewhere",
    )


def test_secrets_are_given_beside_the_document_or_kept(people: People) -> None:
    outcome = import_document(whole(), by=people.admin, secrets={"Second": {"api_key": SECRET}})
    assert (outcome.missing_secrets, provider("Second").status) == ([], "active")
    assert providers.opened(provider("Second")).api_key == SECRET
    document = whole()
    document["providers"][1]["config"]["timeout_s"] = 9
    assert acts(import_document(document, by=people.admin)) == [("update", "Second")]
    assert providers.opened(provider("Second")).api_key == SECRET
    document["providers"][1]["config"]["base_url"] = "https://other.example.com/v1"
    outcome = import_document(document, by=people.admin)
    assert [one.provider for one in outcome.missing_secrets] == ["Second"]
    assert provider("Second").status == "disabled" and provider("Second").sealed is None, "it goes to no other origin"
    with pytest.raises(Invalid):
        import_document(whole(), by=people.admin, secrets={"Third": {"api_key": SECRET}})


def test_a_variable_that_a_document_leaves_out_goes(people: People) -> None:
    import_document(whole(), by=people.admin)
    document = whole()
    del document["providers"][0]["config"]["api_key_env"]
    import_document(document, by=people.admin)
    assert "api_key_env" not in provider("Upstream").settings


def test_other_names_change_owners_within_one_document(people: People) -> None:
    first, second = ({"name": name, "aliases": [alias]} for name, alias in (("a", "x"), ("b", "y")))
    import_document({"portico": 1, "models": [first, second]}, by=people.admin)
    first["aliases"], second["aliases"] = second["aliases"], first["aliases"]
    assert len(import_document({"portico": 1, "models": [first, second]}, by=people.admin).changes) == 2
    assert catalog.model("a").aliases == ["y"]


def test_a_model_that_becomes_restricted_asks_its_subscribers_again(people: People) -> None:
    model = transaction(make_model, people.admin, "small")
    active, _ = transaction(subscriptions.request, people.owner, model, by=people.owner)
    import_document({"portico": 1, "models": [{"name": "small", "restricted": True}]}, by=people.admin)
    db.session.refresh(active)
    assert active.status == "pending"


def test_activating_leads_back_and_forth(people: People) -> None:
    furnish(people)
    transaction(config_changes.ensure_first)
    first = saved_configs.default()
    assert first is not None and first.name == "Initial"
    transaction(config_changes.ensure_first)
    start = present()
    import_document(whole(), by=people.admin)
    second = transaction(save, by=people.admin, name="Second")
    expected = effect_of(first)
    outcome = transaction(activate, first, by=people.admin)
    assert outcome.changes == expected
    assert {one.act for one in outcome.changes} == {"update"}, "nothing is deleted"
    assert provider("Upstream").status == catalog.model("lab/small").status == "disabled"
    assert saved_configs.default() is first and not second.is_default
    previous = saved_configs.get(str(outcome.previous_id))
    assert previous.document == second.document and previous.name.startswith("Before Initial, ")
    back = transaction(activate, previous, by=people.admin)
    assert saved_configs.default() is previous
    assert providers.opened(provider("zeta")).api_key == SECRET, "stored secrets stay"
    transaction(activate, second, by=people.admin)
    assert present()["models"] == second.document["models"]
    assert present()["endpoints"] == second.document["endpoints"]
    assert back.previous_id != outcome.previous_id
    transaction(activate, first, by=people.admin)
    held = {one["name"] for one in start["models"]}
    assert [one for one in present()["models"] if one["name"] in held] == start["models"]


def test_what_was_deleted_since_comes_back_without_its_secret(people: People) -> None:
    furnish(people)
    saved = transaction(save, by=people.admin, name="Saved")
    import_document({"portico": 1, "models": [], "providers": []}, by=people.admin, prune=True)
    outcome = transaction(activate, saved, by=people.admin)
    assert [one.provider for one in outcome.missing_secrets] == ["zeta"]
    assert (provider("zeta").status, provider("Echo").status) == ("disabled", "active")
    assert len(catalog.model("small").deployments) == 2


def test_a_failed_activation_leaves_everything(people: People) -> None:
    furnish(people)
    transaction(config_changes.ensure_first)
    saved = transaction(save, by=people.admin, name="Saved")
    transaction(make_model, people.admin, "other", aliases=["taken"])
    document = copy.deepcopy(saved.document)
    document["models"][0]["aliases"] = ["taken"]
    broken = transaction(saved_configs.create, document, by=people.admin, name="Broken")
    before = present()
    with pytest.raises(Invalid):
        transaction(activate, broken, by=people.admin)
    assert present() == before
    found = saved_configs.default()
    assert found is not None and found.name == "Initial"
