"""Models: made, changed and deleted by forms, with dated prices and rows of deployments."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from sqlalchemy import select
from werkzeug.test import TestResponse

from app import clock, store
from app.domain import catalog, providers, subscriptions
from app.domain.catalog import DeploymentSpec, Model
from app.domain.notices import Notice
from app.domain.prices import NEEDS_AMOUNT, TIER_NAME_RULE, TOKENS_RULE, UNPRICED, Terms
from app.extensions import db, transaction
from app.gateway.breakers import Trip, provider_breaker
from app.metering import money
from app.metering.quantities import PRICES
from app.runtime.ids import new_id
from app.workflows import publication
from tests.blueprints.admin.conftest import READ_ONLY
from tests.blueprints.portal.conftest import Browser, make_key, subscribe, token_of, use
from tests.domain.terms import TERMS
from tests.house import People, make_model, metered  # noqa: F401
from tests.page import Node, Part, read
from tests.services.upstream import CHAT, Upstream, failure

SignedIn = Callable[[str], Browser]


def fresh(name: str) -> Model:
    db.session.rollback()
    return catalog.model(name)


def filled(**changes: object) -> dict[str, object]:
    """A form with everything in it, but for `changes`; None leaves a field out."""
    form: dict[str, object] = {
        "name": "lab/large",
        "display_name": "Large",
        "description": "For hard questions.",
        "status": "active",
        "restricted": "y",
        "capabilities": ["chat", "images"],
        "features": "tools, json mode, tools",
        "context_window": "32768",
        "max_output_tokens": "4096",
        "default_output_tokens": "",
        "price_input_per_mtok": "0.15",
        "price_output_per_mtok": "0.6",
        "price_cached_input_per_mtok": "",
        "price_per_request": "0",
        **changes,
    }
    return {name: value for name, value in form.items() if value is not None}


def row(number: int, provider: str, model: str, priority: str = "0", weight: str = "1") -> dict[str, str]:
    return {
        f"deployments-{number}-provider_id": provider,
        f"deployments-{number}-upstream_model": model,
        f"deployments-{number}-priority": priority,
        f"deployments-{number}-weight": weight,
    }


def rows_of(page: Part, column: str) -> list[str]:
    """The names under which the inputs of a column of the deployments are sent."""
    return [
        field.sent_as
        for field in page.fields
        if field.sent_as.startswith("deployments-") and field.sent_as.endswith(f"-{column}")
    ]


@pytest.fixture
def echo(people: People, small: Model) -> str:
    return small.deployments[0].provider_id


def test_a_model_is_made_with_price_and_deployments(people: People, echo: str, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    rows = row(0, echo, " echo ", "0", "3") | row(1, "", "") | row(1_700_000_000_000, echo, "echo-b", "1", "")
    made = admin.post("/admin/models", **filled(**rows))
    assert made.status_code == 303, made.text
    assert fresh("lab/large").summary() == {
        "name": "lab/large",
        "display_name": "Large",
        "capabilities": ["chat", "images"],
        "features": ["tools", "json mode"],
        "aliases": [],
        "context_window": 32768,
        "max_output_tokens": 4096,
        "default_output_tokens": None,
        "image_tokens": None,
        "audio_tokens": None,
        "query_instruction": "",
        "passage_instruction": "",
        "restricted": True,
        "status": "active",
        "price": dict.fromkeys(PRICES)
        | {"input_per_mtok": "0.15", "output_per_mtok": "0.6", "per_request": "0", "tiers": {}, "long_context": None},
        "deployments": [
            {"provider_id": echo, "upstream_model": "echo", "priority": 0, "weight": 3, "settings": {}},
            {"provider_id": echo, "upstream_model": "echo-b", "priority": 1, "weight": 1, "settings": {}},
        ],
    }
    page = admin.page(made.headers["Location"])
    assert page.toast == "lab/large is added."
    assert page.form(made.headers["Location"]).sends["deployments-1-upstream_model"] == "echo-b"
    page = admin.page("/admin/models?capability=images")
    [listed] = page.rows
    assert (listed.name, listed.codes) == ("Large", ["lab/large"])
    assert (listed.cell("Capabilities"), listed.cell("Input / 1M tokens"), listed.cell("Output / 1M tokens")) == (
        "Chat, images", "$0.15", "$0.60",
    )  # fmt: skip
    assert page.total == "1 result"
    assert "No model fits this search." in admin.page("/admin/models?status=hidden", fragment=True).empty


def test_there_are_spare_rows_without_scripts_and_more_with_them(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    admin = signed_in("admin")
    for path, rows in (("/admin/models/new", 3), (f"/admin/models/{small.id}", 4)):
        page = admin.page(path)
        assert len(set(rows_of(page, "upstream_model"))) == rows
    one, two = (admin.page("/admin/models/new/deployment", fragment=True) for _ in range(2))
    assert [node.tag for node in one.node.children if isinstance(node, Node)] == ["tr"]
    [first], [second] = rows_of(one, "weight"), rows_of(two, "weight")
    assert first not in rows_of(page, "weight")
    assert first <= second


def test_a_change_of_price_is_a_new_dated_price(people: People, small: Model, signed_in: SignedIn) -> None:
    admin, id = signed_in("admin"), small.id
    path, before = f"/admin/models/{small.id}", [price.id for price in small.prices]
    same = {"price_input_per_mtok": "1", "price_output_per_mtok": "2.0", "price_per_request": ""}
    deployments = row(0, small.deployments[0].provider_id, "echo")
    assert admin.post(path, **filled(name=None, **same, **deployments)).status_code == 303
    assert [price.id for price in fresh("small").prices] == before
    assert admin.page(path).toast == "small is saved."
    dearer = {**same, "price_output_per_mtok": "3"}
    assert admin.post(path, **filled(name=None, **dearer, **deployments)).status_code == 303
    prices = fresh("small").prices
    assert [price.id for price in prices[1:]] == before
    assert prices[0].output_per_mtok == 3_000_000_000
    page = admin.page(path)
    assert page.toast == "small is saved. The new price holds from now on."
    assert page.section("Price history").table().column("Output") == ["$3.00", "$2.00"]
    assert catalog.model_by_id(id).display_name == "Large"


def test_deployments_are_changed_and_removed_and_keep_their_own_settings(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    provider = small.deployments[0].provider_id
    wanted = [
        DeploymentSpec(provider_id=provider, upstream_model="a", settings={"tensors": {"x": "y"}}),
        DeploymentSpec(provider_id=provider, upstream_model="b"),
    ]
    transaction(lambda: catalog.update_model(catalog.model("small"), by=None, deployments=wanted))
    form = row(0, provider, "a", "7") | row(1, provider, "b") | {"deployments-1-remove": "y"}
    answer = signed_in("admin").post(f"/admin/models/{fresh('small').id}", **filled(name=None, **form))
    assert answer.status_code == 303
    assert [item.summary() for item in fresh("small").deployments] == [
        {
            "provider_id": provider,
            "upstream_model": "a",
            "priority": 7,
            "weight": 1,
            "settings": {"tensors": {"x": "y"}},
        }
    ]


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"name": ""}, "Name", "Give the model a name."),
        ({"name": "a b"}, "Name", "beginning with a letter or digit"),
        ({"name": "small"}, "Name", "is taken"),
        ({"capabilities": None}, "Capabilities", "Choose at least one."),
        ({"capabilities": ["telepathy"]}, "Capabilities", "is not a valid choice"),
        ({"status": "asleep"}, "Status", "Not a valid choice."),
        ({"context_window": "0"}, "Context window", "at least 1"),
        ({"context_window": "many"}, "Context window", "Not a valid integer value."),
        ({"price_input_per_mtok": "cheap"}, "Input", "an amount such as 12.50"),
        ({"price_output_per_mtok": "-1"}, "Output", "at least 0"),
        ({"price_per_image": "0.0000000001"}, "Image", "at most 9 decimal places"),
        ({"features": "x" * 51}, "Features", "at most 50 words"),
        ({"display_name": "x" * 201}, "Display name", "at most 200 characters"),
        (row(5, "", "orphan"), "Provider", "Deployment 1: Choose a provider."),
        (row(5, "nobody", "orphan"), "Provider", "Deployment 1: There is no such provider."),
        (
            {"deployments-5-provider_id": "ECHO"},
            "Model at the provider",
            "Deployment 1: Enter the provider's name for the model.",
        ),
        (
            {"deployments-5-provider_id": "ECHO", "deployments-5-upstream_model": "e", "deployments-5-weight": "-4"},
            "Weight",
            "Deployment 1: Enter 0 to 1000.",
        ),
    ],
)
def test_a_bad_form_comes_back_with_what_was_typed(
    people: People, echo: str, signed_in: SignedIn, changes: dict[str, object], field: str, told: str
) -> None:
    given = filled(**{name: echo if value == "ECHO" else value for name, value in changes.items()})
    refused = signed_in("admin").post("/admin/models", **given)
    assert refused.status_code == 422
    page = read(refused)
    assert told in page.alert
    assert page.errors.keys() == {field}
    assert told.removeprefix("Deployment 1: ") in page.errors[field]
    sent = page.form("/admin/models").sends
    for name, value in given.items():
        if isinstance(value, str) and name != "status" and value != "nobody":
            assert sent[name] == value, name
    db.session.rollback()
    assert db.session.query(Model).count() == 1


def test_a_deployment_listed_twice_is_told_at_its_row(people: People, echo: str, signed_in: SignedIn) -> None:
    rows = row(0, echo, "echo") | row(1, "", "") | row(2, echo, "echo")
    refused = signed_in("admin").post("/admin/models", **filled(**rows))
    assert refused.status_code == 422
    page = read(refused)
    assert "Deployment 2: This deployment is listed twice." in page.alert
    faulty = [field for field in page.fields if field.error]
    assert [(field.sent_as, field.error) for field in faulty] == [
        ("deployments-2-upstream_model", "This deployment is listed twice."),
    ]


def test_the_name_stays_whatever_a_form_says(people: People, small: Model, signed_in: SignedIn) -> None:
    path = f"/admin/models/{small.id}"
    assert "name" not in signed_in("admin").page(path).form(path).sends
    signed_in("admin").post(path, **filled(name="renamed", id="x", created_at="2001-01-01"))
    assert fresh("small").display_name == "Large"


def test_deleting_counts_whom_it_hits_and_asks_for_the_name(
    people: People, small: Model, guarded: Model, signed_in: SignedIn
) -> None:
    subscribe(people.owner, small)
    subscribe(people.stranger, small)
    subscribe(people.owner, guarded)
    make_key(people.owner, name="all")
    make_key(people.owner, name="this", models=["small"])
    make_key(people.owner, name="other", models=["lab/guarded"])
    admin, path = signed_in("admin"), f"/admin/models/{small.id}/deletion"
    assert "cancels 2 live subscriptions, and 2 keys can no longer call it" in admin.page(path).form(path)
    assert "2 live subscriptions and 2 keys can use it" in admin.page(f"/admin/models/{small.id}")
    for typed in ("", "Small", "lab/guarded"):
        refused = admin.post(path, confirm=typed)
        assert (refused.status_code, read(refused).alert.heading) == (422, "The name you typed is not the model’s")
    assert admin.post(path, confirm="small").status_code == 303
    db.session.rollback()
    assert catalog.find_model("small") is None
    assert {one.status for one in db.session.scalars(subscriptions.owned_by(people.stranger))} == {"cancelled"}
    assert admin.page("/admin/models").toast == "small is deleted."


def part_of(browser: Browser, path: str, **form: object) -> TestResponse:
    """Posts as htmx does, which wants the fragment alone."""
    headers = {"HX-Request": "true", "HX-Request-Type": "partial"}
    data = {"csrf_token": token_of(browser.get("/home")), **form}
    return contextvars.Context().run(browser.client.post, path, data=data, headers=headers)


def previewed(**changes: object) -> dict[str, object]:
    """The form as the page shows it for the model `small`, with other prices."""
    return filled(name=None, price_input_per_mtok="2", price_output_per_mtok="2", price_per_request="0.001", **changes)


def test_a_price_is_previewed_over_the_last_30_days(people: People, small: Model, signed_in: SignedIn) -> None:
    now_ms = clock.now_ms()
    use(people.owner, small, now_ms, prompt_tokens=1001, cached_tokens=1)
    use(people.stranger, small, now_ms - 29 * 86_400_000)
    use(people.owner, small, now_ms - 32 * 86_400_000, cost_nano=77)
    use(people.owner, small, now_ms, api_type="embeddings", completion_tokens=0, cost_nano=1_000_000)
    use(people.owner, small, now_ms, outcome="error", prompt_tokens=0, completion_tokens=0, cost_nano=0)
    admin, path = signed_in("admin"), f"/admin/models/{small.id}/price-preview"
    answer = admin.post(path, **previewed(price_cached_input_per_mtok="0.5"))
    assert answer.status_code == 200
    page = read(answer)
    # chat: 2,000 fresh in at 2, 1 cached at 0.5, 1,000 out at 2, and two requests at 0.001
    table = page.table("What the new price would have meant for the last 30 days")
    assert {row.name: [row.cell(head).text for head in table.heads[-3:]] for row in table.rows} == {
        "Chat": ["$0.004", "$0.0080005", "+$0.0040005"],
        "Embeddings": ["$0.001", "$0.003", "+$0.002"],
        "Total": ["$0.005", "$0.0110005", "+$0.0060005"],
    }
    assert "$0.0060005 more in the last 30 days" in page.section("Price")
    assert page.section("Standard amounts").field("Request").value == "0.001"  # the form is as it was
    part = read(part_of(admin, path, **previewed()))
    assert not part.is_whole
    assert part.table().name == table.name
    assert part.fields == []
    assert fresh("small").prices[0].input_per_mtok == 1_000_000_000
    assert len(fresh("small").prices) == 1


def test_a_preview_says_what_cannot_be_counted(people: People, small: Model, signed_in: SignedIn) -> None:
    admin, path = signed_in("admin"), f"/admin/models/{small.id}/price-preview"
    assert "Not used in the last 30 days" in read(part_of(admin, path, **previewed()))
    wrong = part_of(admin, path, **{**previewed(), "price_input_per_mtok": "a lot"})
    assert (wrong.status_code, read(wrong).alert.heading) == (422, "These prices cannot be used")
    assert "Input: This price is invalid" in read(wrong).alert
    whole = admin.post(path, **{**previewed(), "price_input_per_mtok": "-1"})
    assert (whole.status_code, read(whole).errors.keys()) == (422, {"Input"})
    auditor = signed_in("auditor")
    assert auditor.page(f"/admin/models/{small.id}").button("Preview the price").reason == READ_ONLY
    assert auditor.post(path, **previewed()).status_code == 403


def typed(terms: Terms) -> dict[str, str]:
    """What somebody types for a price, tiers in rows with gaps between them."""
    form = {f"price_{name}": money.text(rate) for name, rate in terms.rates.items() if rate is not None}
    for number, (tier, rates) in enumerate(terms.tiers.items()):
        form[f"tiers-{2 * number}-name"] = f" {tier} "
        form |= {f"tiers-{2 * number}-{name}": money.text(rate) for name, rate in rates.items()}
    if terms.long_context:
        form["long_context-above_prompt_tokens"] = str(terms.long_context["above_prompt_tokens"])
        rates = terms.long_context["rates"]
        form |= {f"long_context-{name}": money.text(rate) for name, rate in rates.items()}
    return form


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TERMS)
def test_a_price_goes_through_the_form_and_back_without_a_loss(
    people: People, small: Model, signed_in: SignedIn, terms: Terms
) -> None:
    admin, name = signed_in("admin"), new_id()
    base = {key: value for key, value in filled(name=name).items() if not key.startswith("price_")}
    made = admin.post("/admin/models", **base, **typed(terms))
    assert made.status_code == 303, made.text
    assert [price.terms for price in fresh(name).prices] == ([] if terms == UNPRICED else [terms])
    path = made.headers["Location"]
    sends = admin.page(path).form(path).sends.to_dict(flat=False)
    again = admin.post(path, **sends)
    assert again.status_code == 303, again.text
    assert [price.terms for price in fresh(name).prices] == ([] if terms == UNPRICED else [terms])


BANDED: dict[str, Any] = {
    "input_per_mtok": "1",
    "tiers": {"flex": {"input_per_mtok": "0.5"}, "priority": {"input_per_mtok": "2", "per_image": "0"}},
    "long_context": {"above_prompt_tokens": 200_000, "input_per_mtok": "1.5", "output_per_mtok": "4"},
}


def test_tiers_and_long_prompts_are_folded_until_they_are_used(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    admin, path = signed_in("admin"), f"/admin/models/{small.id}"

    def opened(page: Part) -> list[str]:
        return [node.name() for node in page.node.within if node.tag == "details" and "open" in node.attributes]

    page = admin.page(path)
    assert opened(page.section("Price")) == []
    assert "Another tier" in page.section("Amounts of service tiers").sections
    transaction(lambda: catalog.update_model(fresh("small"), by=None, price=BANDED))
    page = admin.page(path)
    assert opened(page.section("Price")) == [
        "Service tiers (2)", "Caching, audio and images", "Long prompts (above 200,000 tokens)",
    ]  # fmt: skip
    assert page.section("Tier priority").field("Image").value == "0"
    history = page.section("Price history").table()
    assert history.column("Tiers and long prompts") == [
        "flex: Input $0.50 priority: Input $2.00, image Free Above 200,000 tokens: Input $1.50, output $4.00", "None",
    ]  # fmt: skip
    assert signed_in("auditor").page(path).section("Tier flex").field("Input").disabled


def test_a_tier_and_the_amounts_of_long_prompts_are_taken_away(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    admin, path = signed_in("admin"), f"/admin/models/{small.id}"
    transaction(lambda: catalog.update_model(fresh("small"), by=None, price=BANDED))
    sends = admin.page(path).form(path).sends.to_dict(flat=False)
    emptied = {name: [""] for name in sends if name.startswith("long_context-")}
    assert admin.post(path, **{**sends, **emptied, "tiers-0-remove": "y"}).status_code == 303
    price = fresh("small").price
    assert price is not None
    assert price.bands() == {"tiers": {"priority": price.bands()["tiers"]["priority"]}, "long_context": None}


def test_more_tiers_come_with_scripts_and_some_are_there_without(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    admin = signed_in("admin")
    page = admin.page("/admin/models/new")
    names = [field.sent_as for field in page.fields if field.text == "Name of the tier"]
    assert names == [f"tiers-{number}-name" for number in range(3)]
    more = admin.page("/admin/models/new/tier", fragment=True)
    assert more.field("Name of the tier").sent_as not in names
    assert more.section("Another tier").field("Input").value == ""


def test_every_fault_of_a_price_is_named_at_once_and_what_was_typed_stays(
    people: People, echo: str, signed_in: SignedIn
) -> None:
    typed = {
        "price_input_per_mtok": "cheap",
        "tiers-0-name": "Flex!",
        "tiers-0-output_per_mtok": "-1",
        "tiers-3-name": "batch",
        "tiers-5-name": "batch",
        "tiers-5-audio_input_per_mtok": "much",
        "long_context-above_prompt_tokens": "0",
        "deployments-5-upstream_model": "orphan",
    }
    refused = signed_in("admin").post("/admin/models", **filled(**typed))
    assert refused.status_code == 422
    page = read(refused)
    assert [item.text for item in page.alert.items] == [
        "Input: This price is invalid: expected an amount such as 12.50.",
        f"Service tier 1, Name of the tier: {TIER_NAME_RULE}",
        "Service tier 1, Output: This price is invalid: expected an amount of at least 0.",
        f"Service tier 2, Input: {NEEDS_AMOUNT}",
        "Service tier 3, Name of the tier: This tier is listed twice.",
        "Service tier 3, Audio input: This price is invalid: expected an amount such as 12.50.",
        f"Long prompts, Above so many prompt tokens: {TOKENS_RULE}",
        f"Long prompts, Input: {NEEDS_AMOUNT}",
        "Deployment 1: Choose a provider.",
    ]
    sends = page.form("/admin/models").sends
    assert {name: sends[name] for name in typed} == typed
    faulty = {field.sent_as for field in page.fields if field.error}
    assert faulty == {
        "price_input_per_mtok", "tiers-0-name", "tiers-0-output_per_mtok", "tiers-3-input_per_mtok", "tiers-5-name",
        "tiers-5-audio_input_per_mtok", "long_context-above_prompt_tokens", "long_context-input_per_mtok",
        "deployments-5-provider_id",
    }  # fmt: skip
    shut = [
        node for node in page.section("Price").node.within
        if node.tag == "details" and "open" not in node.attributes
        and any(field.error for field in Part(node).fields)
    ]  # fmt: skip
    assert shut == [], "no fault is folded away"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ({f"tiers-{number}-name": f"t{number}" for number in range(11)}, "Use at most 10 tiers."),
        ({"long_context-input_per_mtok": "1"}, TOKENS_RULE),
        ({"long_context-above_prompt_tokens": "9" * 5000}, "Not a valid integer value."),
        ({"long_context-above_prompt_tokens": "9" * 50}, TOKENS_RULE),
        ({"tiers-0-input_per_mtok": "1"}, TIER_NAME_RULE),
        ({"tiers-0-name": "x" * 33, "tiers-0-input_per_mtok": "1"}, TIER_NAME_RULE),
    ],
    ids=lambda value: None,
)
def test_a_band_that_makes_no_sense_is_refused(
    people: People, echo: str, signed_in: SignedIn, typed: dict[str, str], told: str
) -> None:
    refused = signed_in("admin").post("/admin/models", **filled(**typed))
    assert refused.status_code == 422
    assert told in read(refused).alert


def test_a_change_of_tiers_meanwhile_is_shown_and_not_overwritten(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    admin, path = signed_in("admin"), f"/admin/models/{small.id}"
    sends = admin.page(path).form(path).sends.to_dict(flat=False)
    transaction(lambda: catalog.update_model(fresh("small"), by=None, price=BANDED))
    answer = admin.post(path, **sends)
    assert answer.status_code == 409
    assert "flex: Input 0.5; priority: Input 2, Image 0" in read(answer)
    assert "above 200000 tokens: Input 1.5, Output 4" in read(answer)


def test_a_preview_leaves_tiers_and_long_prompts_out_and_says_so(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    use(people.owner, small, clock.now_ms())
    admin, path = signed_in("admin"), f"/admin/models/{small.id}/price-preview"
    part = read(part_of(admin, path, **previewed(**{"tiers-0-name": "flex", "tiers-0-input_per_mtok": "9"})))
    assert "Service tiers and long prompts are left out" in part
    wrong = part_of(admin, path, **previewed(**{"tiers-0-name": "flex", "tiers-0-input_per_mtok": "nine"}))
    assert (wrong.status_code, read(wrong).alert.heading) == (422, "These prices cannot be used")
    assert "Service tier 1, Input: This price is invalid" in read(wrong).alert
    saved = admin.post(f"/admin/models/{fresh('small').id}", **previewed(price_per_image="nine"))
    assert read(saved).alert.heading == "Please check these fields", "told once"


def test_a_price_is_planned_from_a_later_time_on(people: People, small: Model, signed_in: SignedIn) -> None:
    admin, path = signed_in("admin"), f"/admin/models/{small.id}"
    form = filled(name=None, **row(0, small.deployments[0].provider_id, "echo"))
    later = (clock.now() + timedelta(days=3)).replace(second=0, microsecond=0)
    planned = admin.post(path, **{**form, "display_name": "Later", "price_from": f"{later:%Y-%m-%dT%H:%M}"})
    assert planned.status_code == 303, planned.text
    item = fresh("small")
    assert item.display_name == "Later"
    assert item.price is not None
    assert item.price.input_per_mtok == 1_000_000_000
    assert (item.prices[0].from_at, item.prices[0].input_per_mtok) == (later, 150_000_000)
    page = admin.page(path)
    assert page.toast == f"small is saved. The new price holds from {later:%Y-%m-%d %H:%M} UTC."
    planned_row, running = page.section("Past and planned prices").table().rows
    assert planned_row.cell("From").texts == [f"{later:%Y-%m-%d %H:%M:%S} UTC", "Planned"]
    assert (planned_row.cell("Input"), running.cell("Input")) == ("$0.15", "$1.00")
    past = admin.post(path, **{**form, "display_name": "Past", "price_from": "2020-01-01T00:00"})
    assert (past.status_code, read(past).errors) == (
        422, {"Effective from": "A price can start now or later, not in the past."},
    )  # fmt: skip
    assert fresh("small").display_name == "Later"
    assert admin.post(path, **{**form, "price_from": "soon"}).status_code == 422
    assert "price_from" not in admin.page("/admin/models/new").form("/admin/models").sends


def untouched(item: Model, **changes: object) -> dict[str, object]:
    """What a browser sends of the model's form as it stands, but for `changes`."""
    one = item.deployments[0]
    form = filled(name=None, restricted="y" if item.restricted else None, capabilities=["chat"], status=item.status)
    form |= {"price_input_per_mtok": "1", "price_output_per_mtok": "2", "price_per_request": ""}
    return form | row(0, one.provider_id, one.upstream_model) | changes


def statuses(person: object) -> set[str]:
    db.session.rollback()
    return {one.status for one in db.session.scalars(subscriptions.owned_by(person))}  # type: ignore[arg-type]


def test_restricting_asks_first_and_then_puts_access_up_for_decision(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    subscribe(people.owner, small)
    subscribe(people.stranger, small)
    admin, path = signed_in("admin"), f"/admin/models/{small.id}"
    form = untouched(small, restricted="y", display_name="Small, guarded")
    asked = admin.post(path, **form)
    assert asked.status_code == 409
    page = read(asked)
    assert "Restricting it turns 2 active subscriptions pending" in page.alert
    assert page.field("Display name").value == "Small, guarded"
    assert not fresh("small").restricted
    assert "Save all the same" in page.alert.buttons
    mark = page.form(path).sends["confirmed"]
    subscribe(people.admin, fresh("small"))
    again = admin.post(path, **form, confirmed=mark)  # what was confirmed is not what would happen now
    assert again.status_code == 409
    assert "turns 3 active" in read(again).alert
    mark = read(again).form(path).sends["confirmed"]
    assert admin.post(path, **form, confirmed=mark).status_code == 303
    assert fresh("small").restricted
    for person in (people.owner, people.stranger, people.admin):
        assert statuses(person) == {"pending"}
    [found] = db.session.scalars(subscriptions.owned_by(people.owner))
    assert [step.status for step in found.timeline] == ["active", "pending"]
    told = db.session.scalars(select(Notice).where(Notice.person_id == people.owner.id)).all()
    assert [notice.kind for notice in told] == ["subscription.restrict"]
    assert admin.post(path, **untouched(fresh("small"), display_name="Same")).status_code == 303  # nothing is hit now


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("hidden", "Hiding it hits 1 live subscription and 1 key: they go on working"),
        ("disabled", "Disabling it hits 1 live subscription and 1 key: calls are refused"),
    ],
)
def test_hiding_and_disabling_tell_whom_they_hit(
    people: People, small: Model, signed_in: SignedIn, status: str, told: str
) -> None:
    admin, path = signed_in("admin"), f"/admin/models/{small.id}"
    subscribe(people.owner, small)
    make_key(people.owner)
    since = fresh("small").status_at
    asked = admin.post(path, **untouched(small, status=status))
    assert asked.status_code == 409
    assert told in read(asked).alert
    mark = read(asked).form(path).sends["confirmed"]
    assert admin.post(path, **untouched(small, status=status), confirmed=mark).status_code == 303
    item = fresh("small")
    assert (item.status, item.status_at) > (status, since)
    assert statuses(people.owner) == {"active"}


def test_what_hits_nobody_is_not_asked_about(people: People, small: Model, signed_in: SignedIn) -> None:
    path = f"/admin/models/{small.id}"
    form = untouched(small, restricted="y", status="disabled", image_tokens="1200", audio_tokens="300",
                     query_instruction="query: {text}")  # fmt: skip
    assert signed_in("admin").post(path, **form).status_code == 303
    item = fresh("small")
    assert item.query_instruction == "query: {text}"
    assert (item.restricted, item.status, item.image_tokens, item.audio_tokens) == (True, "disabled", 1200, 300)


def test_the_list_is_narrowed_sorted_counted_and_taken_away(
    people: People, small: Model, guarded: Model, signed_in: SignedIn
) -> None:
    lab = transaction(providers.create, by=None, name="Lab", kind="echo", config={}, status="disabled")
    spec = DeploymentSpec(provider_id=lab.id, upstream_model="x")
    transaction(make_model, None, "lone", deployments=[spec], price={"input_per_mtok": "0.1"})
    subscribe(people.owner, small)
    subscribe(people.stranger, small)
    make_key(people.owner)
    make_key(people.owner, models=["small"])
    admin = signed_in("admin")

    def listed(query: str) -> list[str]:
        return [row.codes[0] for row in admin.page(f"/admin/models?{query}", fragment=True).rows]

    assert listed("access=restricted") == ["lab/guarded"]
    assert listed("access=open&sort=price") == ["lone", "small"]
    assert listed(f"provider={lab.id}") == ["lone"]
    assert listed("sort=-subscribers")[0] == "small"
    page = admin.page("/admin/models")
    assert (page.row("small").cell("Users"), page.row("small").cell("Keys")) == ("2", "2")
    assert "Unavailable" in page.row("lone").cell("Status")
    assert "Unavailable" not in page.row("small").cell("Status")
    rows = admin.get("/admin/models?access=open&sort=price&format=json", buffered=True).get_json()["data"]
    assert [(one["name"], one["input_per_mtok"], one["available"]) for one in rows] == [
        ("lone", "0.1", False), ("small", "1", True)]  # fmt: skip


def test_a_model_is_tested_by_a_call_like_any_other_that_its_admin_pays(
    people: People, small: Model, upstream: Upstream, signed_in: SignedIn, metered: None  # noqa: F811
) -> None:  # fmt: skip
    config = {"base_url": upstream.url, "api_key": "sk-upstream-0123456789"}
    real = transaction(providers.create, by=None, name="Real", kind="openai", config=config)
    specs = [
        DeploymentSpec(provider_id=small.deployments[0].provider_id, upstream_model="later", priority=5),
        DeploymentSpec(provider_id=real.id, upstream_model="small"),
    ]
    transaction(make_model, None, "tried", deployments=specs)
    transaction(make_model, None, "unserved", deployments=[])
    transaction(make_model, None, "mute", capabilities=["speech"])
    publication.publish_all()
    admin, path = signed_in("admin"), f"/admin/models/{fresh('tried').id}"
    assert "charged to you" in admin.page(path).section("Test call")
    answer = admin.post(f"{path}/test", prompt="Are you there?")
    assert (answer.status_code, read(answer).alert.heading) == (200, "It works")
    assert "Are you there?" in read(answer).section("Test call")
    asked = [exchange for exchange in upstream.requests if exchange.path == CHAT]
    assert asked[0].json["model"] == "small"
    part = read(part_of(admin, f"{path}/test"))
    assert not part.is_whole
    assert part.section("Test call").alert.heading == "It works"
    assert "No provider serves" in read(admin.post(f"/admin/models/{fresh('unserved').id}/test"))
    assert "Only models that chat or embed" in read(admin.post(f"/admin/models/{fresh('mute').id}/test"))
    upstream.always(CHAT, failure(503))
    refused = admin.post(f"{path}/test", prompt="one")
    assert refused.status_code == 200, "the second deployment answers"
    assert signed_in("auditor").post(f"{path}/test").status_code == 403


def test_a_models_page_tells_which_way_its_calls_go(people: People, signed_in: SignedIn, wire: redis.Redis) -> None:
    first, second = (
        transaction(providers.create, by=None, name=name, kind="echo", config={}) for name in ("first", "second")
    )
    specs = [
        DeploymentSpec(provider_id=one.id, upstream_model="m", priority=n) for n, one in enumerate((first, second))
    ]
    model = transaction(make_model, None, "two", deployments=specs)
    trip = Trip(since_ms=1, at_ms=1, until_ms=clock.now_ms() + 60_000, reason="The provider can't be reached.", times=1)
    wire.hset(store.BREAKERS, provider_breaker(first.id), msgspec.json.encode(trip))
    route = signed_in("auditor").page(f"/admin/models/{model.id}").table("Deployments in the order to try them")
    told = [(row.cell("Provider"), row.cell("Circuit breaker")) for row in route.rows]
    assert told == [("second", "Closed"), ("first", "Open")]
    assert "The provider can't be reached." in route.row("first").cell("Why")
