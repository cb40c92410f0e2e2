"""The API's description: it is made of the routes, says all of them, and nothing that is not so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from jsonschema_rs import meta
from msgspec import Struct

from app.blueprints.api.contract import OPERATIONS, Paged, _parameters_of
from app.blueprints.api.openapi import document, path_of
from tests import described
from tests.house import People, sign_in

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture
def told(app: Flask, people: People) -> dict[str, Any]:
    """The document as a program gets it."""
    answer = sign_in(app, "stranger").get("/api/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    found: dict[str, Any] = answer.get_json()
    return found


def operations(told: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_route_of_the_door_is_described_and_every_description_is_a_route(
    app: Flask, told: dict[str, Any]
) -> None:
    served = {
        (method, path_of(rule.rule), rule.endpoint.removeprefix("api."))
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("api.")
        for method in (rule.methods or set()) & METHODS
    }
    assert {(method, path, one["operationId"]) for method, path, one in operations(told)} == served, (
        "declare the route with @route of app.blueprints.api.contract"
    )
    assert len(served) == len(OPERATIONS)


def test_operation_ids_are_unique_and_follow_from_the_code(told: dict[str, Any]) -> None:
    ids = [one["operationId"] for _, _, one in operations(told)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z_]+", id) for id in ids)
    assert ids.count("keys_rotate") == 1


def test_the_document_is_sound(told: dict[str, Any]) -> None:
    assert told["openapi"].startswith("3.1.")
    for reference in references(told):
        found: Any = told
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    for name, schema in told["components"]["schemas"].items():
        assert re.fullmatch(r"[A-Za-z]+", name), f"two Structs are called {name.rpartition('.')[2]}; rename one of them"
        meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    tags = {tag["name"] for tag in told["tags"]}
    for method, path, one in operations(told):
        assert set(one["tags"]) <= tags
        assert one["summary"].endswith((".", "?")), (method, path, "the docstring begins with its summary, a sentence")
        assert re.findall(r"{(\w+)}", path) == [at["name"] for at in one.get("parameters", []) if at["in"] == "path"]


def test_every_list_is_a_page_of_a_name_and_takes_its_parameters(told: dict[str, Any]) -> None:
    lists = 0
    for method, path, one in operations(told):
        answered = one["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
        schema = told["components"]["schemas"].get(answered.get("$ref", "").rpartition("/")[2], {})
        if path in ("/api/search", "/api/settings"):  # the best of all that matches, or everything; not a page of it
            continue
        if method == "GET" and "data" in schema.get("properties", {}):
            lists += 1
            assert {"data", "page", "limit", "total"} <= set(schema["properties"]), path
            assert "$ref" in schema["properties"]["data"]["items"], path
            assert {"page", "limit"} <= {at["name"] for at in one["parameters"]}, path
    assert lists > 10


def test_what_needs_a_sign_in_says_so(told: dict[str, Any]) -> None:
    open_to_all = {(method, path) for method, path, one in operations(told) if one["security"] == []}
    assert open_to_all == {("POST", "/token"), ("POST", "/refresh-token"), ("POST", "/api/auth/login")}
    for method, path, one in operations(told):
        if one["security"]:
            session = next(way for way in one["security"] if "session" in way)
            assert ("csrf" in session) == (method != "GET"), path
            assert "401" in one["responses"]


def test_the_token_is_asked_for_by_a_form(told: dict[str, Any]) -> None:
    assert set(told["paths"]["/token"]["post"]["requestBody"]["content"]) == {
        "application/x-www-form-urlencoded",
        "application/json",
    }


def test_instants_say_that_they_are(told: dict[str, Any]) -> None:
    schemas = told["components"]["schemas"]
    assert schemas["Key"]["properties"]["created_at"]["format"] == "date-time"
    assert {"type": "string", "format": "date-time"} in schemas["NewKey"]["properties"]["expires_at"]["anyOf"]
    since = next(at for at in told["paths"]["/api/requests"]["get"]["parameters"] if at["name"] == "from")
    assert since["schema"] == {"type": "string", "format": "date-time"}


def test_a_query_is_read_as_it_is_described(app: Flask, people: People) -> None:
    owner = sign_in(app, "owner")
    for path, name, message in (
        ("/api/requests?limit=0", "limit", "Enter a number from 1 to 200."),
        ("/api/requests?page=%D9%A3", "page", "Enter a number from 1 to 1000000."),
        ("/api/requests?from=yesterday", "from", "Enter a time such as 2026-11-21T08:00:00Z."),
        ("/api/requests/stats?groupBy=year", "groupBy", "Choose one of"),
        ("/api/keys?user=%00", "user", "This value cannot be used."),
    ):
        answer = owner.get(path)
        assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, name), path
        assert message in answer.get_json()["error"]["message"]
    assert owner.get("/api/requests?limit=&from=2026-01-01&unknown=1").get_json()["limit"] == 50


def test_a_query_that_nobody_can_bear_is_refused_when_it_is_declared() -> None:
    class Endless(Paged):
        rows: int = 5

    class Nested(Struct):
        inner: dict[str, str] = {}

    for kind in (Endless, Nested):
        with pytest.raises(TypeError, match="cannot be a query parameter"):
            _parameters_of(kind)


def test_an_answer_that_is_not_described_is_noticed(app: Flask, people: People) -> None:
    answer = sign_in(app, "owner").get("/api/keys")
    assert described.fault("keys_index", answer) is None
    assert "$.data" not in (described.fault("keys_detail", answer) or "")
    assert "is a required property" in (described.fault("keys_detail", answer) or "")
    assert "not described" in (described.fault("keys_create", answer) or "")


def test_the_description_lasts(app: Flask) -> None:
    assert document() is document()
