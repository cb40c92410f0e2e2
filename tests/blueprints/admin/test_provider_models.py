"""A provider's models: what it lists is shown, and what is ticked is published in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.domain import catalog, providers
from app.domain.catalog import DeploymentSpec
from app.extensions import db, transaction
from tests.blueprints.admin.conftest import READ_ONLY, usable
from tests.blueprints.portal.conftest import Browser
from tests.house import People, make_model
from tests.page import read
from tests.services.upstream import Answer, Upstream, failure

SignedIn = Callable[[str], Browser]
MODELS = "/v1/models"
LISTED = {"data": [{"id": "gpt-4o"}, {"id": "gpt-4o-mini", "context_window": 64_000}, {"id": "house/blend-1"}]}


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    shared_upstream.always(MODELS, Answer(LISTED))
    return shared_upstream


def make(upstream: Upstream) -> str:
    config = {"base_url": upstream.url, "api_key": "sk-upstream-0123456789abcdef", "timeout_s": 2}
    return transaction(providers.create, by=None, name="Upstream", kind="openai", config=config).id


def path_of(id: str) -> str:
    return f"/admin/providers/{id}/models"


def sent(browser: Browser, id: str, *chosen: str, **changes: str) -> dict[str, str]:
    """What a browser sends of the form as it stands, with some models ticked, and `changes`."""
    forms = [form for form in browser.page(path_of(id)).forms if form.action == path_of(id) and form.method == "post"]
    values = {name: value for name, value in forms[0].sends.items() if name != "csrf_token"}
    rows = {
        name.removesuffix("-upstream_model"): value for name, value in values.items() if name[-15:] == "-upstream_model"
    }
    return values | {f"{row}-chosen": "y" for row, model in rows.items() if model in chosen} | changes


def fresh(name: str) -> Any:
    db.session.rollback()
    return catalog.find_model(name)


def test_the_provider_s_page_leads_to_what_it_lists(people: People, signed_in: SignedIn, upstream: Upstream) -> None:
    admin, id = signed_in("admin"), make(upstream)
    page = admin.page(f"/admin/providers/{id}")
    assert "It has not been asked yet." in page.section("Health")
    assert path_of(id) in page.hrefs
    page = admin.page(path_of(id))
    assert [row.cell("Listed as").text for row in page.rows] == ["gpt-4o", "gpt-4o-mini", "house/blend-1"]
    assert [one.path for one in upstream.requests] == [MODELS]
    health = admin.page(f"/admin/providers/{id}").section("Health")
    assert "Healthy" in health and "3 models listed" in health
    assert admin.page("/admin/providers").row("Upstream").cell("Health") == "Healthy"


def test_what_is_known_is_filled_in(people: People, signed_in: SignedIn, upstream: Upstream) -> None:
    admin, id = signed_in("admin"), make(upstream)
    values = sent(admin, id)
    assert (values["m0-name"], values["m0-context_window"], values["m0-input_per_mtok"]) == ("gpt-4o", "128000", "2.5")
    assert values["m1-context_window"] == "64000"
    assert (values["m2-name"], values["m2-context_window"], values["m2-input_per_mtok"]) == ("house/blend-1", "", "")
    assert "m0-cached_input_per_mtok" in values and "m2-cached_input_per_mtok" not in values
    assert "Also sets prices for priority service, unless you change one of these." in admin.page(path_of(id)).row(
        "gpt-4o"
    )


def test_what_is_ticked_is_published(people: People, signed_in: SignedIn, upstream: Upstream) -> None:
    admin, id = signed_in("admin"), make(upstream)
    changes = {"m2-name": "blend", "m2-capability": "embeddings", "m2-input_per_mtok": "0.5", "restricted": "y"}
    done = admin.post(path_of(id), **sent(admin, id, "gpt-4o", "house/blend-1", **changes))
    assert (done.status_code, done.headers["Location"]) == (303, f"/admin/models?provider={id}")
    assert "2 models are published." in admin.page(done.headers["Location"]).toast
    blend = fresh("blend")
    assert (blend.capabilities, blend.restricted, blend.deployments[0].upstream_model) == (
        ["embeddings"], True, "house/blend-1",
    )  # fmt: skip
    assert blend.price.decimals()["input_per_mtok"] == "0.5" and blend.price.tiers == {}
    assert fresh("gpt-4o").price.tiers and fresh("gpt-4o-mini") is None
    rows = admin.page(path_of(id)).rows
    assert "Published as blend" in rows[2].text and "Published" in rows[0].text and "Published" not in rows[1].text
    assert [row.cell("Listed as").text for row in admin.page(f"{path_of(id)}?show=new").rows] == ["gpt-4o-mini"]


def test_a_price_that_was_changed_holds_for_every_tier(people: People, signed_in: SignedIn, upstream: Upstream) -> None:
    admin, id = signed_in("admin"), make(upstream)
    admin.post(path_of(id), **sent(admin, id, "gpt-4o", **{"m0-input_per_mtok": "3"}))
    price = fresh("gpt-4o").price
    assert (price.decimals()["input_per_mtok"], price.tiers) == ("3", {})


def test_nothing_is_published_while_one_cannot_be(people: People, signed_in: SignedIn, upstream: Upstream) -> None:
    admin, id = signed_in("admin"), make(upstream)
    transaction(make_model, people.admin, "gpt-4o")
    faulty = sent(admin, id, "gpt-4o", "gpt-4o-mini", "house/blend-1",
                  **{"m0-name": "a b", "m1-output_per_mtok": "dear", "m2-context_window": "0"})  # fmt: skip
    refused = admin.post(path_of(id), **faulty)
    assert refused.status_code == 422
    text = read(refused).text
    assert "gpt-4o: Use 1 to 200 letters" in text
    assert "gpt-4o-mini: This price is invalid" in text and "house/blend-1: Enter a number of at least 1." in text
    refused = admin.post(path_of(id), **sent(admin, id, "gpt-4o", "gpt-4o-mini"))
    assert refused.status_code == 422 and "gpt-4o: The name gpt-4o is taken." in read(refused).text
    assert fresh("gpt-4o-mini") is None and fresh("house/blend-1") is None
    refused = admin.post(path_of(id), **sent(admin, id))
    assert refused.status_code == 422 and "Choose at least one model." in read(refused).text
    assert "gpt-4o-mini" in read(refused).text, "what was sent is still there"


def test_a_long_list_has_pages_and_a_search(people: People, signed_in: SignedIn, upstream: Upstream) -> None:
    upstream.always(MODELS, Answer({"data": [{"id": f"model-{number:03}"} for number in range(45)]}))
    admin, id = signed_in("admin"), make(upstream)
    page = admin.page(path_of(id))
    assert (len(page.rows), page.total) == (20, "45 results")
    assert len(admin.page(f"{path_of(id)}?page=3").rows) == 5
    assert [row.cell("Listed as").text for row in admin.page(f"{path_of(id)}?q=L-044").rows] == ["model-044"]
    assert "No model fits this search." in admin.page(f"{path_of(id)}?q=none").empty
    assert len(admin.page(f"{path_of(id)}?q=04", fragment=True).rows) == 6


def test_a_list_that_cannot_be_read_is_said_so(people: People, signed_in: SignedIn, upstream: Upstream) -> None:
    upstream.always(MODELS, Answer("<html>Sign in</html>", content_type="text/html"))
    admin, id = signed_in("admin"), make(upstream)
    page = admin.page(path_of(id))
    assert "The provider's list of models can't be read; is the base URL right?" in page.alert
    upstream.always(MODELS, failure(404, "Not found"))
    done = admin.post(f"{path_of(id)}/list")
    assert done.status_code == 303
    assert "has no list of models" in admin.page(path_of(id)).empty
    upstream.always(MODELS, Answer(LISTED))
    admin.post(f"{path_of(id)}/list")
    assert len(admin.page(path_of(id)).rows) == 3


def test_whoever_only_reads_sees_the_list_and_publishes_nothing(
    people: People, signed_in: SignedIn, upstream: Upstream
) -> None:
    auditor, id = signed_in("auditor"), make(upstream)
    page = auditor.page(path_of(id))
    assert len(page.rows) == 3 and READ_ONLY in page.text
    assert "Publish selected" not in usable(page)
    assert auditor.post(path_of(id), **{"m0-upstream_model": "gpt-4o", "m0-chosen": "y"}).status_code == 403
    assert fresh("gpt-4o") is None


def test_a_model_of_another_provider_is_not_taken_for_one_of_this(
    people: People, signed_in: SignedIn, upstream: Upstream
) -> None:
    admin, id = signed_in("admin"), make(upstream)
    other = transaction(
        providers.create, by=None, name="Other", kind="vllm", config={"base_url": "http://127.0.0.1:9/v1"}
    ).id
    specs = [DeploymentSpec(provider_id=other, upstream_model="gpt-4o")]
    transaction(make_model, people.admin, "elsewhere", deployments=specs)
    assert "Published" not in admin.page(path_of(id)).rows[0].text
