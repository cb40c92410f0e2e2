"""Models: made, changed and deleted by forms, with dated prices and rows of deployments."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from app.domain import catalog, subscriptions
from app.domain.catalog import DeploymentSpec, Model
from app.extensions import db, transaction
from tests.blueprints.portal.conftest import Browser, make_key, subscribe
from tests.house import People

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


def of_form(page: str) -> dict[str, str]:
    """The deployments' inputs as a page shows them."""
    return dict(re.findall(r'name="(deployments-\d+-(?:upstream_model|priority|weight))"[^>]* value="([^"]*)"', page))


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
        "context_window": 32768,
        "max_output_tokens": 4096,
        "default_output_tokens": None,
        "restricted": True,
        "status": "active",
        "price": {
            "input_per_mtok": "0.15",
            "output_per_mtok": "0.6",
            "cached_input_per_mtok": None,
            "per_image": None,
            "per_audio_minute": None,
            "per_request": "0",
        },
        "deployments": [
            {"provider_id": echo, "upstream_model": "echo", "priority": 0, "weight": 3, "settings": {}},
            {"provider_id": echo, "upstream_model": "echo-b", "priority": 1, "weight": 1, "settings": {}},
        ],
    }
    page = admin.get(made.headers["Location"]).text
    assert "lab/large is added." in page
    assert of_form(page)["deployments-1-upstream_model"] == "echo-b"
    listed = admin.get("/admin/models?capability=images").text
    assert "lab/large" in listed
    assert "$0.15" in listed
    assert "1 result<" in listed
    assert "No model fits this search." in admin.get("/admin/models?status=hidden", fragment=True).text


def test_there_are_spare_rows_without_scripts_and_more_with_them(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    admin = signed_in("admin")
    for path, rows in (("/admin/models/new", 3), (f"/admin/models/{small.id}", 4)):
        page = admin.get(path).text
        assert len(set(re.findall(r"deployments-(\d+)-upstream_model", page))) == rows
    one, two = (admin.get("/admin/models/new/deployment", fragment=True).text for _ in range(2))
    assert one.lstrip().startswith("<tr")
    assert re.findall(r"deployments-(\d+)-weight", one) != re.findall(r"deployments-(\d+)-provider_id", page)
    assert re.findall(r"deployments-(\d+)-weight", one) <= re.findall(r"deployments-(\d+)-weight", two)


def test_a_change_of_price_is_a_new_dated_price(people: People, small: Model, signed_in: SignedIn) -> None:
    admin, id = signed_in("admin"), small.id
    path, before = f"/admin/models/{small.id}", [price.id for price in small.prices]
    same = {"price_input_per_mtok": "1", "price_output_per_mtok": "2.0", "price_per_request": ""}
    deployments = row(0, small.deployments[0].provider_id, "echo")
    assert admin.post(path, **filled(name=None, **same, **deployments)).status_code == 303
    assert [price.id for price in fresh("small").prices] == before
    assert "The new price" not in admin.get(path).text
    dearer = {**same, "price_output_per_mtok": "3"}
    assert admin.post(path, **filled(name=None, **dearer, **deployments)).status_code == 303
    prices = fresh("small").prices
    assert [price.id for price in prices[1:]] == before
    assert prices[0].output_per_mtok == 3_000_000_000
    page = admin.get(path).text
    assert "The new price holds from now on." in page
    assert "Prices so far" in page
    assert "$2.00" in page
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
    ("changes", "told"),
    [
        ({"name": ""}, "Give the model a name."),
        ({"name": "a b"}, "beginning with a letter or digit"),
        ({"name": "small"}, "is taken"),
        ({"capabilities": None}, "Choose at least one."),
        ({"capabilities": ["telepathy"]}, "is not a valid choice"),
        ({"status": "asleep"}, "Not a valid choice."),
        ({"context_window": "0"}, "at least 1"),
        ({"context_window": "many"}, "Not a valid integer value."),
        ({"price_input_per_mtok": "cheap"}, "an amount such as 12.50"),
        ({"price_output_per_mtok": "-1"}, "at least 0"),
        ({"price_per_image": "0.0000000001"}, "at most 9 decimal places"),
        ({"features": "x" * 51}, "at most 50 words"),
        ({"display_name": "x" * 201}, "at most 200 characters"),
        (row(5, "", "orphan"), "Deployment 1: Choose a provider."),
        (row(5, "nobody", "orphan"), "Deployment 1: There is no such provider."),
        ({"deployments-5-provider_id": "ECHO"}, "Deployment 1: Give the model&#39;s name there."),
        (
            {"deployments-5-provider_id": "ECHO", "deployments-5-upstream_model": "e", "deployments-5-weight": "-4"},
            "0 to 1000",
        ),
    ],
)
def test_a_bad_form_comes_back_with_what_was_typed(
    people: People, echo: str, signed_in: SignedIn, changes: dict[str, object], told: str
) -> None:
    given = filled(**{name: echo if value == "ECHO" else value for name, value in changes.items()})
    refused = signed_in("admin").post("/admin/models", **given)
    assert refused.status_code == 422
    assert told in refused.text
    assert "For hard questions." in refused.text
    assert "tools, json mode, tools" in refused.text or "features" in changes
    for name, value in given.items():
        if isinstance(value, str) and name != "status" and value != "nobody":
            assert value in refused.text, name
    db.session.rollback()
    assert db.session.query(Model).count() == 1


def test_a_deployment_listed_twice_is_told_at_its_row(people: People, echo: str, signed_in: SignedIn) -> None:
    rows = row(0, echo, "echo") | row(1, "", "") | row(2, echo, "echo")
    refused = signed_in("admin").post("/admin/models", **filled(**rows))
    assert refused.status_code == 422
    assert "Deployment 2: This deployment is listed twice." in refused.text
    assert 'id="deployments-2-upstream_model-error"' in refused.text


def test_the_name_stays_whatever_a_form_says(people: People, small: Model, signed_in: SignedIn) -> None:
    path = f"/admin/models/{small.id}"
    assert 'name="name"' not in signed_in("admin").get(path).text
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
    page = admin.get(path).text
    assert "cancels 2 live subscriptions, and 2 keys can no longer call it" in page
    assert "2 live subscriptions and 2 keys can use it" in admin.get(f"/admin/models/{small.id}").text
    for typed in ("", "Small", "lab/guarded"):
        refused = admin.post(path, confirm=typed)
        assert refused.status_code == 422
        assert "The name you typed is not the model’s" in refused.text
    assert admin.post(path, confirm="small").status_code == 303
    db.session.rollback()
    assert catalog.find_model("small") is None
    assert {one.status for one in db.session.scalars(subscriptions.of(people.stranger))} == {"cancelled"}
    assert "small is deleted." in admin.get("/admin/models").text
