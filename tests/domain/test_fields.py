"""What a noun declares once reaches its check, its form, its API, the API's description and its history."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from flask import Flask
from msgspec import Meta

import app as package
from app.blueprints.admin.models import new_form
from app.blueprints.admin.people import ProfileForm
from app.blueprints.admin.providers import form_of
from app.blueprints.api.contract import Body, sent_members, with_fields
from app.blueprints.portal.key_forms import SettingsForm
from app.blueprints.portal.team_forms import BoundsForm, TeamForm
from app.domain import fields, keys, teams
from app.domain.catalog import ModelFields
from app.domain.errors import Invalid
from app.domain.keys import KeyFields
from app.domain.person import PersonFields
from app.domain.providers import ProviderFields
from app.domain.teams import TeamFields
from app.extensions import transaction
from app.pages import history
from app.pages.history import history_lines
from app.providers import adapter
from app.web.forms import EditForm, with_inputs
from tests.house import (  # noqa: F401
    People,
    Program,
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

Size = Annotated[int, Meta(ge=1, le=100)]
Short = Annotated[str, Meta(max_length=5)]


def shout(text: str) -> str:
    if not text:
        raise Invalid("Say something.", "cry")
    return text.upper()


class Sample(msgspec.Struct, kw_only=True):
    """A field of each kind."""

    cry: Annotated[str, Meta(max_length=5, title="Cry", extra={"needed": "Cry something.", "read": shout})]
    note: Annotated[Short | None, Meta(title="Note", description="What for.", extra={"lines": 2})] = None
    colour: Annotated[Literal["red", "blue"], Meta(title="Colour", extra={"labels": {"red": "Red as a rose"}})] = "red"
    shape: Annotated[
        Literal["round", "flat"], Meta(title="Shape", extra={"spread": True, "refusal": "Round or flat."})
    ] = "round"
    open: Annotated[bool, Meta(title="Open")] = False
    rooms: Annotated[list[Literal["hall", "bath"]], Meta(min_length=1, title="Rooms")] = msgspec.field(
        default_factory=lambda: ["hall"]
    )
    tags: Annotated[list[Short], Meta(max_length=2, title="Tags")] = []
    size: Annotated[Size | None, Meta(title="Size", description="How many.")] = None
    password: Annotated[str, Meta(title="Password", extra={"role": "secret"})] = ""


class Thing:
    def __init__(self) -> None:
        fields.fill(Sample, self, {**fields.usual(Sample), "cry": "hi"})


@with_inputs(Sample)
class SampleForm(EditForm):
    pass


USUAL = {
    "cry": "HI", "note": None, "colour": "red", "shape": "round", "open": False, "rooms": ["hall"], "tags": [],
    "size": None,
}  # fmt: skip


def test_what_is_new_has_the_usual_values_and_a_secret_is_not_told() -> None:
    assert fields.told(Sample, Thing()) == USUAL
    assert fields.usual(Sample)["rooms"] is not fields.usual(Sample)["rooms"]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("cry", "hello", "HELLO"),
        ("note", " x ", "x"), ("note", " ", None), ("note", None, None),
        ("colour", "blue", "blue"), ("colour", None, "red"),
        ("open", True, True),
        ("rooms", ["bath", "hall"], ["hall", "bath"]),
        ("tags", [" a ", "b", "a"][:2], ["a", "b"]), ("tags", None, []),
        ("size", 100, 100), ("size", None, None),
        ("size", msgspec.UNSET, None),
    ],
)  # fmt: skip
def test_what_is_given_is_kept_as_its_field_keeps_it(name: str, value: Any, kept: Any) -> None:
    thing = Thing()
    fields.fill(Sample, thing, {name: value})
    assert fields.told(Sample, thing) == {**USUAL, name: kept}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cry", "", "Say something."),
        ("note", "123456", "Use at most 5 characters."),
        ("colour", "green", "Choose one of red, blue."),
        ("shape", "oval", "Round or flat."),
        ("rooms", [], "Choose at least one of hall, bath."), ("rooms", ["attic"], "Choose at least one of hall, bath."),
        ("tags", ["a", "b", "c"], "Use at most 2 words of at most 5 characters."),
        ("tags", ["123456"], "Use at most 2 words of at most 5 characters."),
        ("tags", [" "], "Use at most 2 words of at most 5 characters."),
        ("size", 0, "Enter a number from 1 to 100, or leave this empty."),
        ("size", 101, "Enter a number from 1 to 100, or leave this empty."),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_at_its_field_and_nothing_is_set(name: str, value: Any, message: str) -> None:
    thing = Thing()
    with pytest.raises(Invalid) as refused:
        fields.fill(Sample, thing, {"open": True, name: value})
    assert (refused.value.field, refused.value.message) == (name, message)
    assert fields.told(Sample, thing) == USUAL


def test_what_is_given_as_it_is_already_is_not_checked_again() -> None:
    thing = Thing()
    thing.size = 1000  # type: ignore[attr-defined]
    fields.fill(Sample, thing, {"size": 1000, "open": True})
    assert fields.told(Sample, thing) == {**USUAL, "size": 1000, "open": True}


def test_a_name_that_no_field_has_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="smell"):
        fields.fill(Sample, Thing(), {"smell": 1})


def test_a_field_without_title_or_bounds_is_refused_when_it_is_declared() -> None:
    class Bare(msgspec.Struct):
        size: Size | None = None

    class Unbounded(msgspec.Struct):
        size: Annotated[int | None, Meta(title="Size")] = None

    for kind in (Bare, Unbounded):
        with pytest.raises(TypeError):
            fields.fields_of(kind)


def test_a_form_shows_each_field_and_gives_what_was_entered(app: Flask) -> None:  # noqa: F811
    with app.test_request_context():
        form = SampleForm(data=fields.told(Sample, Thing()))
        assert [field.name for field in form.others] == [
            "cry", "note", "colour", "shape", "open", "rooms", "tags", "password",
        ]  # fmt: skip
        assert [(field.name, field.label.text, field.description) for field in form.numbers] == [
            ("size", "Size", "How many.")
        ]
        assert [field.type for field in form.others] == [
            "StringField", "TextAreaField", "SelectField", "RadioField", "BooleanField", "SelectMultipleField",
            "WordsField", "PasswordField",
        ]  # fmt: skip
        assert next(iter(form["colour"].iter_choices()))[:2] == ("red", "Red as a rose")
        assert 'maxlength="5"' in form["note"]()
        assert form.entered() == USUAL
    sent = {
        "cry": " x ", "note": "", "colour": "blue", "shape": "flat", "open": "y", "rooms": ["bath"], "tags": "a, b,,",
        "size": "7", "password": "secret",
    }  # fmt: skip
    with app.test_request_context(method="POST", data=sent):
        form = SampleForm(meta={"csrf": False})
        assert form.validate_on_submit(), form.errors
        assert form.entered() == {
            "cry": "x", "note": "", "colour": "blue", "shape": "flat", "open": True, "rooms": ["bath"],
            "tags": ["a", "b"], "size": 7, "password": "secret",
        }  # fmt: skip
    with app.test_request_context(method="POST", data={"note": "123456", "size": "0"}):
        form = SampleForm()
        assert not form.validate_on_submit()
        assert form.errors["cry"] == ["Cry something."]
        assert form.errors["note"] == ["Use at most 5 characters."]
        assert form.errors["size"] == ["Enter a number of at least 1."]
        assert form.errors["rooms"][0] == "Choose at least one."
        assert "colour" in form.errors, "a choice that is not sent is not taken for the usual one"


def test_a_form_that_shows_a_field_in_a_way_of_its_own_keeps_it() -> None:
    class Own(EditForm):
        colour = SampleForm.size

    form = with_inputs(Sample, without=("cry",))(Own)
    assert form.colour is SampleForm.size
    assert not hasattr(form, "cry")

    class Taken(EditForm):
        note = "no input"

    with pytest.raises(TypeError, match="note"):
        with_inputs(Sample)(Taken)


def test_a_body_takes_each_field_and_an_answer_tells_it() -> None:
    body = with_fields(Body, Sample, absent=msgspec.UNSET, required=("cry",), nullable=("colour",))
    assert sent_members(msgspec.convert({"cry": "x"}, body)) == {"cry": "x"}
    assert sent_members(msgspec.convert({"cry": "x", "colour": None, "size": None}, body), "cry") == {
        "colour": None,
        "size": None,
    }
    for wrong in (
        {},
        {"cry": 1},
        {"cry": "123456"},
        {"size": 0},
        {"size": "5"},
        {"open": None},
        {"smell": 1},
        {"tags": [1]},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"cry": "x", **wrong} if wrong else wrong, body)
    # what the domain refuses in its own words is left to it
    assert sent_members(msgspec.convert({"cry": "x", "shape": "oval", "colour": "green"}, body), "cry") == {
        "shape": "oval", "colour": "green",
    }  # fmt: skip

    answer = with_fields(msgspec.Struct, Sample)
    assert msgspec.to_builtins(answer(**fields.told(Sample, Thing()))) == USUAL
    with pytest.raises(TypeError, match="note"):
        answer(cry="x")
    described = msgspec.json.schema(body)["$defs"]["BodyWithSample"]["properties"]["note"]
    assert (described["title"], described["description"]) == ("Note", "What for.")


# --- the nouns ---


def another(field: fields.Field) -> tuple[Any, Any]:
    """Two values that the field may have beside the usual one: as programs give it, and as a form is sent it."""
    if field.type == "boolean":
        return True, "y"
    if field.name.endswith("_instruction"):
        return "query: {text}", " query: {text}\r\n"
    if field.is_number:
        return 7, "7"
    if field.type == "choice":
        value = field.choices[-1]
        return ([value], [value]) if field.several else (value, value)
    return (["tools"], "tools") if field.several else ("another", "another")


def of(kind: type[msgspec.Struct], *but: str) -> list[Any]:
    return [pytest.param(field, id=field.name) for field in fields.fields_of(kind) if field.name not in but]


# The API has both instructions in one object, see tests/blueprints/api/test_models.py.
@pytest.mark.parametrize("field", of(ModelFields, "name", "query_instruction", "passage_instruction"))
def test_each_field_of_a_model_reaches_program_form_description_and_history(
    field: fields.Field, app: Flask, people: People  # noqa: F811
) -> None:  # fmt: skip
    transaction(make_model, people.admin)
    value, sent = another(field)
    must_reach(
        field, sign_in(app, "admin"), "/api/models/small", value, ("Model", "ModelChange", "NewModel"), "model.update"
    )
    with app.test_request_context(method="POST", data={field.name: sent}):
        form, _ = new_form(sent=True)
        assert form.to_changes()[field.name] == value


@pytest.mark.parametrize("field", of(KeyFields, "models"))
def test_each_field_of_a_key_reaches_program_form_description_and_history(
    field: fields.Field, app: Flask, people: People  # noqa: F811
) -> None:  # fmt: skip
    owner = sign_in(app, "owner")
    made = owner.post("/api/keys", json={"name": "app"}).get_json()
    path = f"/api/keys/{made['id']}"
    value, sent = another(field)
    before = made[field.name]
    assert owner.patch(path, json={field.name: value}).get_json()[field.name] == value
    refused = owner.patch(path, json={field.name: {}})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, field.name)
    described = owner.get("/api/openapi.json").get_json()["components"]["schemas"]
    for noun in ("Key", "KeyChange", "NewKey"):
        assert described[noun]["properties"][field.name]["title"] == field.title
    key = keys.get_visible(people.owner, made["id"])
    lines = history_lines(keys.history(key))
    told = ", ".join(value) if isinstance(value, list) else value
    change = f"{before} → {told}" if before else told
    assert f"{fields.words(KeyFields)[field.name]}: {change}" in [line.text for line in lines]
    with app.test_request_context(method="POST", data={field.name: sent}):
        assert SettingsForm().to_changes()[field.name] == value


@pytest.mark.parametrize(
    "field", of(ModelFields, "name", "description", "status", "restricted", "capabilities", "features")
)
def test_a_field_of_a_model_is_named_where_it_is_declared_and_where_it_is_used(field: fields.Field) -> None:
    """One more takes a line in `ModelFields` and its column beside it, and a migration; the gateway's record names those
    that it uses. Whatever else names one shows it in a way of its own."""
    root = Path(package.__file__).parent
    naming = {
        str(path.relative_to(root))
        for folder in ("domain", "workflows", "blueprints/admin", "blueprints/api", "web", "pages")
        for path in (root / folder).rglob("*.py")
        if f"{field.name}:" in path.read_text() or f"{field.name}=" in path.read_text()
    }
    imports = {  # what a provider lists is read and shown by itself
        "blueprints/api/providers.py", "workflows/model_import.py", "workflows/known_models.py",
        "blueprints/admin/provider_models.py",
        "pages/clients.py",  # a client's file has it by its own name
        "workflows/litellm_things.py",  # so has LiteLLM
        "pages/public_status.py",  # what everybody may see is written out
    }  # fmt: skip
    assert naming - imports - {"blueprints/api/usage.py", "blueprints/api/requests.py"} <= {"domain/catalog.py"}


@pytest.mark.parametrize("field", of(ProviderFields))
def test_each_field_of_a_provider_reaches_program_form_description_and_history(
    field: fields.Field, app: Flask, people: People  # noqa: F811
) -> None:  # fmt: skip
    admin = sign_in(app, "admin")
    made = admin.post("/api/providers", json={"name": "Echo", "provider": "echo"}).get_json()
    path = f"/api/providers/{made['id']}"
    value, sent = another(field)
    must_reach(field, admin, path, value, ("Provider", "ProviderChange", "NewProvider"), "provider.update")
    if field.name != "type":  # a form makes what is called by the API
        with app.test_request_context(method="POST", data={field.name: sent}):
            assert form_of(adapter("echo"), {})().to_changes()[field.name] == value


@pytest.mark.parametrize("field", of(PersonFields))
def test_each_field_of_a_person_reaches_program_form_description_and_history(
    field: fields.Field, app: Flask, people: People  # noqa: F811
) -> None:  # fmt: skip
    value, sent = ("ada@example.org", "ada@example.org") if field.name == "email" else another(field)
    value = ["portal"] if field.name == "scopes" else value
    must_reach(
        field, sign_in(app, "admin"), "/admin/users/owner", value, ("User", "UserChange", "NewUser"), "person.update"
    )
    if field.name not in ("scopes", "disabled"):  # which pages of their own change
        with app.test_request_context(method="POST", data={field.name: sent}):
            assert ProfileForm().entered()[field.name] == value


@pytest.mark.parametrize("field", of(TeamFields))
def test_each_field_of_a_team_reaches_program_form_description_and_history(
    field: fields.Field, app: Flask, people: People  # noqa: F811
) -> None:  # fmt: skip
    admin = sign_in(app, "admin")
    made = admin.post("/api/teams", json={"name": "Research"}).get_json()
    value, sent = another(field)
    path = f"/api/teams/{made['id']}"
    must_reach(field, admin, path, value, ("Team", "TeamChange", "NewTeam"), "team.update", method="PATCH")
    label = history.LABELS[field.name]
    lines = history_lines(teams.history(teams.get_visible(people.admin, made["id"])))
    told = ", ".join(value) if isinstance(value, list) else str(value)
    assert any(line.text.startswith(f"{label}: ") and line.text.endswith(told) for line in lines)
    with app.test_request_context(method="POST", data={field.name: sent}):
        assert (BoundsForm if field.is_number else TeamForm)().entered()[field.name] == value


def must_reach(
    field: fields.Field,
    client: Program,
    path: str,
    value: Any,
    nouns: Iterable[str],
    action: str,
    *,
    method: str = "PUT",
) -> None:
    """The field can be set by a program, is told by it, refused at its name, described, and stands in the audit log."""
    change = client.put if method == "PUT" else client.patch
    assert change(path, json={field.name: value}).get_json()[field.name] == value
    assert client.get(path).get_json()[field.name] == value
    last = client.get(f"/api/audit?action={action}").get_json()["data"][0]
    if (action, field.name) != ("model.update", "description"):  # which is too long to be kept with each change
        assert last["detail"]["after"][field.name] == value
    refused = change(path, json={field.name: {}})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, field.name)
    described = client.get("/api/openapi.json").get_json()["components"]["schemas"]
    for noun in nouns:
        assert described[noun]["properties"][field.name]["title"] == field.title


@pytest.mark.parametrize("tags", [["a b"], ["/home/ada"], ["x" * 65], [""], [f"t{at}" for at in range(101)]])
@pytest.mark.parametrize("noun", [KeyFields, TeamFields])
def test_no_tag_is_allowed_that_no_request_could_bear(noun: fields.Fields, tags: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        fields.fill(noun, type("Noun", (), {})(), {"tags": tags})
    assert refused.value.field == "tags"
