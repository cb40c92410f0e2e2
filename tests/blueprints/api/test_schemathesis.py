"""Schemathesis reads the description and asks everything it allows, and much that it forbids, of the real API.

Each operation gets a database of its own with one of everything in it; the seed is fixed, so that a failure repeats.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from werkzeug.test import TestResponse

from app.blueprints import api
from app.blueprints.api.contract import OPERATIONS, SAFE_METHODS
from tests.house import sign_in
from tests.things import Things, things  # noqa: F401

pytestmark = [pytest.mark.slow]

for module in pkgutil.iter_modules(api.__path__):
    import_module(f"{api.__name__}.{module.name}")
# The description itself is what schemathesis reads, and leaves out.
NAMES = sorted(operation.name for operation in OPERATIONS if operation.name != "openapi_description")
GUARDED = sorted({operation.name for operation in OPERATIONS if operation.scope is not None} & set(NAMES))
# What would end the very token that these tests ask with; each is asked as nobody, and by tests of its own.
ENDS_THE_ASKER = {"tokens_change_password"}

AS_DESCRIBED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 12
SEED = 20261121
CONFIG = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})


def known(operation: str, parameter: str, things: Things) -> str:
    """What a parameter of a path may really be."""
    noun = operation.partition("_")[0]
    values = {
        "username": "member" if noun == "teams" else things["username"],
        "name": things["model"],
        "period": "day",
        "scope": "key",
        "id": {
            "budgets": things["key"],
            "endpoints": "chat-completions",
            "keys": things["key"],
            "providers": things["provider"],
            "requests": things["request"],
            "subscriptions": things["pending"],
            "teams": things["team"],
        }.get(noun, "nothing"),
    }
    return values.get(parameter, "nothing")


_described: dict[Flask, dict[str, Any]] = {}


def described_by(app: Flask, authorization: str) -> dict[str, Any]:
    """What schemathesis reads in the application's description, which is the same in each of its worlds."""
    if app not in _described:
        headers = {"Authorization": authorization}
        schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app=app, headers=headers, config=CONFIG)
        found = [operation.ok() for operation in schema.get_all_operations()]
        _described[app] = {operation.definition.raw["operationId"]: operation for operation in found}
    return _described[app]


class Asker:
    """Asks one operation, as the admin with a token or as nobody."""

    def __init__(self, app: Flask, name: str) -> None:
        app.config["TESTING"] = False
        app.config["PROPAGATE_EXCEPTIONS"] = False
        self.app = app
        self.headers = sign_in(app, "admin").headers
        self.operation = described_by(app, self.headers["Authorization"])[name]
        self.parameters = [parameter.name for parameter in self.operation.path_parameters]

    def ask(self, case: Any, headers: dict[str, str]) -> TestResponse:
        return case.call(headers=headers)


def each(strategy: Any, ask: Any) -> None:
    """Asks `ask` for some cases of `strategy`, always the same ones."""

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def run(case: Any) -> None:
        ask(case)

    run()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ENDS_THE_ASKER])
def test_an_admin_is_answered_as_described(app: Flask, things: Things, name: str) -> None:
    asker = Asker(app, name)

    def ask(case: Any) -> None:
        answer = asker.ask(case, asker.headers)
        # An empty parameter counts as an absent one, and a blank body as an empty object, which no schema can say.
        blank = isinstance(case.body, bytes) and not case.body.strip()
        judged = not blank and all(value != "" for value in (case.query or {}).values())
        case.validate_response(answer, checks=[*AS_DESCRIBED, *([negative_data_rejection] if judged else [])])

    named = {parameter: known(name, parameter, things) for parameter in asker.parameters}
    for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
        for fixed in [None, named] if named else [None]:
            if mode is GenerationMode.NEGATIVE and not asker.operation.body and not len(asker.operation.query):
                continue  # there is nothing to get wrong
            each(asker.operation.as_strategy(mode, path_parameters=fixed), ask)


@pytest.mark.parametrize("name", GUARDED)
def test_nobody_is_never_let_in(app: Flask, things: Things, name: str) -> None:
    asker = Asker(app, name)

    def ask(case: Any) -> None:
        for headers in ({}, {"Authorization": "Bearer made-up"}, {"Authorization": "Basic YWRtaW46YWRtaW4="}):
            answer = asker.ask(case, headers)
            assert answer.status_code == 401, (case.formatted_path, headers)
            case.validate_response(answer, checks=AS_DESCRIBED)

    named = {parameter: known(name, parameter, things) for parameter in asker.parameters}
    each(asker.operation.as_strategy(path_parameters=named or None), ask)


@pytest.mark.parametrize("name", NAMES)
def test_another_method_is_refused_and_the_right_ones_are_named(app: Flask, things: Things, name: str) -> None:
    operation = next(one for one in OPERATIONS if one.name == name)
    client = app.test_client(use_cookies=False)
    path = operation.rule
    for part in ("<path:name>", "<username>", "<scope>", "<period>", "<id>"):
        path = path.replace(part, "x")
    answer = client.open(path, method="REPORT")
    assert answer.status_code == 405, path
    assert operation.method in answer.headers["Allow"]
    assert set(answer.get_json()["error"]) == {"code", "message", "field"}


def test_the_unsafe_operations_are_asked_too() -> None:
    assert sum(operation.method not in SAFE_METHODS for operation in OPERATIONS) > 20
