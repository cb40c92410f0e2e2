"""What a noun declares once reaches its check, its form, its API, the API's description and its history."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from flask import Flask
from msgspec import Meta
from wtforms import Form

import app as package
from app.blueprints.admin.models import ModelForm
from app.blueprints.api.contract import Body, with_fields
from app.blueprints.portal.key_forms import KeyForm
from app.domain import catalog, fields, keys
from app.domain.errors import Invalid
from app.extensions import transaction
from app.pages.history import history_lines
from app.web.forms import with_numbers
from tests.house import (  # noqa: F401
    People,
    app,
    config,
    database_url,
    home,
    inside,
    make_model,
    migrated,
    people,
    quick_hashes,
    sign_in,
    valkey_url,
    wire,
)

Tokens = Annotated[int, Meta(ge=1, le=100)]
LIMITS = catalog.Limits.__struct_fields__
RATES = keys.Rates.__struct_fields__
every_rate = pytest.mark.parametrize("name", RATES)
every_limit = pytest.mark.parametrize("name", LIMITS)


class Sample(msgspec.Struct, kw_only=True):
    size: Annotated[Tokens | None, Meta(title="Size", description="How many.")] = None


class Thing:
    size: int | None = 5


def test_one_declaration_is_a_check_a_form_field_and_a_member_of_a_body() -> None:
    assert fields.numbers_of(Sample) == (fields.Number("size", "Size", "How many.", 1, 100),)
    thing = Thing()
    fields.fill(Sample, thing, {"size": msgspec.UNSET})
    assert fields.told(Sample, thing) == {"size": 5}
    fields.fill(Sample, thing, {"size": None})
    assert thing.size is None
    assert fields.words(Sample) == {"size": "size"}
    for wrong in (0, 101):
        with pytest.raises(Invalid) as refused:
            fields.fill(Sample, thing, {"size": wrong})
        assert refused.value.field == "size"
    with pytest.raises(TypeError, match="colour"):
        fields.fill(Sample, thing, {"colour": 1})

    form = with_numbers(Sample)(type("SampleForm", (Form,), {}))()  # type: ignore[type-var]
    assert (form["size"].label.text, form["size"].description) == ("Size", "How many.")

    body = with_fields(Body, Sample, absent=msgspec.UNSET)
    assert msgspec.convert({}, body).size is msgspec.UNSET
    assert msgspec.convert({"size": None}, body).size is None
    for wrong_body in ({"size": 0}, {"size": "5"}, {"colour": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong_body, body)


def test_a_field_without_title_or_bounds_is_refused_when_it_is_declared() -> None:
    class Bare(msgspec.Struct):
        size: int | None = None

    with pytest.raises(TypeError, match="size"):
        fields.numbers_of(Bare)


@every_limit
def test_each_limit_of_a_model_can_be_set_by_program_and_by_form_and_stands_in_the_history(
    name: str, app: Flask, people: People  # noqa: F811
) -> None:  # fmt: skip
    item = transaction(make_model, people.admin)
    admin = sign_in(app, "admin")
    assert admin.put("/api/models/small", json={name: 7}).get_json()[name] == 7
    refused = admin.put("/api/models/small", json={name: 0})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, name)
    described = admin.get("/api/openapi.json").get_json()["components"]["schemas"]
    for noun in ("Model", "ModelChange", "NewModel"):
        assert described[noun]["properties"][name]["title"]
    assert catalog.model("small").summary()[name] == 7
    with app.test_request_context(method="POST", data={name: "8"}):
        assert ModelForm().wanted()[name] == 8
    transaction(catalog.update_model, item, by=people.admin, **{name: None})
    assert catalog.model("small").summary()[name] is None


@every_rate
def test_each_rate_of_a_key_can_be_set_by_program_and_by_form_and_stands_in_the_history(
    name: str, app: Flask, people: People  # noqa: F811
) -> None:  # fmt: skip
    owner = sign_in(app, "owner")
    made = owner.post("/api/keys", json={"name": "app", name: 6}).get_json()
    assert made[name] == 6
    path = f"/api/keys/{made['id']}"
    assert owner.patch(path, json={name: 7}).get_json()[name] == 7
    assert owner.patch(path, json={"note": "x"}).get_json()[name] == 7
    refused = owner.patch(path, json={name: 0})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, name)
    steps = history_lines(keys.history(keys.get_visible(people.owner, made["id"])))
    assert f"{fields.words(keys.Rates)[name]}: 6 → 7" in [step.text for step in steps]
    with app.test_request_context(method="POST", data={name: "8"}):
        assert KeyForm().wanted()[name] == 8


@every_limit
def test_a_limit_of_a_model_is_named_where_it_is_declared_and_where_it_is_used(name: str) -> None:
    """One more takes a line in `Limits` and its column beside it, and a migration; the gateway's record names those that
    it uses. Whatever else names one shows it in a way of its own."""
    root = Path(package.__file__).parent
    naming = {
        str(path.relative_to(root))
        for folder in ("domain", "workflows", "blueprints/admin", "blueprints/api", "web", "pages")
        for path in (root / folder).rglob("*.py")
        if f"{name}:" in path.read_text() or f"{name}=" in path.read_text()
    }
    assert naming - {"blueprints/api/usage.py", "blueprints/api/requests.py"} <= {"domain/catalog.py"}
