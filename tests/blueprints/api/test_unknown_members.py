"""A member that a route does not know is refused by its name, at the top of a body and in every object within it."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import msgspec
import pytest
from flask import Flask

from app.blueprints import api
from app.blueprints.api.contract import OPERATIONS, Body, route
from app.blueprints.api.openapi import document
from app.extensions import transaction
from tests.house import People, Program, make_model, sign_in
from tests.things import Things, things  # noqa: F401

for module in pkgutil.iter_modules(api.__path__):  # all routes, before they are described
    import_module(f"{api.__name__}.{module.name}")

BODIES = {"POST", "PUT", "PATCH"}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema itself, and of several the object."""
    if "$ref" in schema:
        return resolved(document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    for one in schema.get("anyOf", ()):
        if "$ref" in one or one.get("type") in ("object", "array"):
            return resolved(one)
    return schema


def example(schema: dict[str, Any], at: str, wrong: str | None) -> Any:
    """The least that fits a schema; the object at `wrong` has a member more."""
    found = resolved(schema)
    if "enum" in found:
        return found["enum"][0]
    match found.get("type"):
        case "object":
            inside = {}
            for name, inner in found.get("properties", {}).items():
                path = f"{at}.{name}".lstrip(".")
                if name in found.get("required", ()) or (wrong or "").startswith(path):
                    inside[name] = example(inner, path, wrong)
            return inside | ({"rmp": 5} if at == wrong else {})
        case "array":
            return [example(found["items"], f"{at}[0]", wrong)]
        case "integer":
            return 1
        case "boolean":
            return True
        case _:
            return "one two three"


def objects(schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """Where a body's schema has objects whose members are known."""
    found = resolved(schema)
    if found.get("type") == "array":
        yield from objects(found["items"], f"{at}[0]")
    elif "properties" in found:
        yield at
        for name, inner in found["properties"].items():
            yield from objects(inner, f"{at}.{name}".lstrip("."))


def cases() -> list[Any]:
    found = []
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            for schema in operation.get("requestBody", {}).get("content", {}).items():
                if schema[0] == "application/json":
                    found += [
                        pytest.param(method, path, schema[1]["schema"], at, id=f"{method} {path} {at}")
                        for at in objects(schema[1]["schema"])
                    ]
    return found


@pytest.mark.parametrize(("method", "path", "schema", "at"), cases())
def test_a_member_that_nobody_knows_is_refused_by_its_name(
    app: Flask, things: Things, method: str, path: str, schema: dict[str, Any], at: str
) -> None:
    admin = sign_in(app, "admin")
    path = path.replace("{id}", "x").replace("{username}", "x").replace("{name}", "x").replace("{scope}", "key")
    answer = getattr(admin, method)(path, json=example(schema, "", at))
    fault = answer.get_json()["error"]
    assert (answer.status_code, fault["field"]) == (422, f"{at}.rmp".lstrip(".")), fault


def test_every_route_with_a_body_is_among_the_cases() -> None:
    covered = {case.id.split(" ")[1] for case in cases()}
    assert len(covered) > 20
    assert {operation.method for operation in OPERATIONS if operation.body is not None} <= BODIES


class Inner(msgspec.Struct):
    limit: int = 0


class Outer(Body, kw_only=True):
    inner: list[Inner] | None = None


def test_a_body_that_would_swallow_members_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="Inner"):
        route("POST", "/api/never", body=Outer)(lambda body: None)


def test_misspelt_limits_and_states_change_nothing(app: Flask, visitors: People) -> None:
    owner = sign_in(app, "owner")
    refused = owner.post("/api/keys", json={"name": "app", "rmp": 5})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "rmp")
    assert owner.get("/api/keys").get_json()["total"] == 0
    made = owner.post("/api/keys", json={"name": "app"}).get_json()
    refused = owner.patch(f"/api/keys/{made['id']}", json={"status": "paused"})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "status")


def test_a_route_without_a_body_refuses_members_too(app: Flask, visitors: People) -> None:
    refused = sign_in(app, "owner").post("/api/auth/logout", json={"everywhere": True})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "everywhere")


def test_an_object_may_be_put_as_it_was_told(app: Flask, visitors: People) -> None:
    admin: Program = sign_in(app, "admin")
    with app.app_context():
        transaction(make_model, None, "small")
    told = admin.get("/api/models/small").get_json()
    changed = admin.put("/api/models/small", json={**told, "description": "Small and quick"})
    assert changed.status_code == 200, changed.text
    assert changed.get_json() == {
        **told, "description": "Small and quick", "updated_at": changed.get_json()["updated_at"]
    }  # fmt: skip


def test_what_an_oauth_client_sends_beside_its_form_is_left_out(app: Flask, visitors: People) -> None:
    form = {"username": "owner", "password": "a long enough password", "grant_type": "password", "client_id": "x"}
    assert app.test_client().post("/token", data=form).status_code == 200
