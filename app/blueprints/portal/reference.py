"""The API reference: the management API from its own description, and what every caller of /v1 needs to know.

The description comes from the code (`app.web.reference`). This page only arranges it and adds this portal's address.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

from app import current
from app.gateway import errors
from app.gateway.errors import ApiError
from app.pages.snippets import VARIABLE, base_url
from app.web import reference
from app.web.render import render

TOKEN = "PORTICO_TOKEN"
FORM = "application/x-www-form-urlencoded"
BUDGET_STOP = "insufficient_quota"
TITLES = {
    "auth": "Browser session",
    "openapi": "Description",
    "tokens": "Signing in",
    "users": "People",
    "audit": "Audit log",
    "budget_requests": "Budget requests",
}


class Field(NamedTuple):
    """One parameter or member: its name, where it is, its type, and whether it is required."""

    name: str
    place: str
    kind: str
    required: bool


class Answer(NamedTuple):
    status: str
    text: str
    schema: str | None


class Operation(NamedTuple):
    id: str
    method: str
    path: str
    summary: str
    paragraphs: list[str]
    fields: list[Field]
    answers: list[Answer]
    curl: str


class Noun(NamedTuple):
    name: str
    title: str
    text: str
    operations: list[Operation]


class Case(NamedTuple):
    """One way in which /v1 refuses a call."""

    case: str
    status: str
    type: str
    code: str | None


def _case(case: str, error: ApiError, status: str | None = None) -> Case:
    return Case(case, status or str(error.status), error.type, error.code)


CASES = (
    _case("No API key", errors.no_key()),
    _case("Unknown, malformed, revoked or expired key", errors.bad_key()),
    _case(
        "The body is not JSON, or a field is missing, ill-typed or out of range; `param` names it",
        errors.bad_request(""),
    ),
    _case("Under a budget: a field asks for something that the model’s price does not cover", errors.bad_request("")),
    _case("The key’s routing is fixed and the request names a provider", errors.routing_fixed()),
    _case("The key is not made for this path: see its “May be used for”", errors.out_of_scope("audio", ("chat",))),
    _case("The model is unknown, or this key may not use it", errors.unknown_model("", "")),
    _case("Unknown path", errors.unknown_path("", "")),
    _case("Wrong method", errors.wrong_method("", "")),
    _case("The body is too large", errors.too_large(1)),
    Case("Too many requests a minute, or at a time", "429", "requests", "rate_limit_exceeded"),
    Case("Too many tokens a minute", "429", "tokens", "rate_limit_exceeded"),
    Case("A budget would be exceeded; the message names it", "429", BUDGET_STOP, BUDGET_STOP),
    _case("Every provider is limiting requests", errors.upstream_busy(1)),
    _case("The provider refused this request", errors.upstream_refused(400, "", None, None), "400, 413, 422"),
    _case("No provider could be reached or understood", errors.upstream_failed("")),
    _case("The endpoint is switched off", errors.endpoint_disabled("")),
    _case("A store of the gateway is away; it is never the key’s fault", errors.unavailable("")),
    _case("No provider answered in time", errors.upstream_timeout()),
)
HEADERS = (
    ("x-request-id", "On every answer; the request’s page bears the same id."),
    ("x-ratelimit-limit-requests, x-ratelimit-limit-tokens", "What a minute allows, by the tightest limit that holds."),
    ("x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens", "What is left of it now."),
    ("x-ratelimit-reset-requests, x-ratelimit-reset-tokens", "When all of it is there again, such as 12s."),
    ("Retry-After", "With 429 and 503: the seconds to wait; for a spent budget until it resets."),
    ("x-should-retry", "`false` where waiting does not help, such as a spent budget."),
    ("x-portico-max-tokens", "The output limit that a request without one was given, so that it fits the budget."),
)


bp = Blueprint("reference", __name__)


@bp.get("/reference")
def index() -> Response:
    base = base_url()
    origin = base.removesuffix("/v1")
    document = reference.document()
    budget_stop = str(current.config().gateway.budget_stop_status)
    return render(
        "portal/reference/index.html",
        nouns=_nouns(document, origin) if document else [],
        cases=[case._replace(status=budget_stop) if case.code == BUDGET_STOP else case for case in CASES],
        headers=HEADERS,
        base_url=base,
        origin=origin,
        first=_first(base, origin),
    )


@bp.get("/reference/objects")
def objects() -> Response:
    document = reference.document()
    if not document:
        raise NotFound
    return render("portal/reference/objects.html", objects=_objects(document))


def _first(base: str, origin: str) -> list[dict[str, str]]:
    models = f'curl {base}/models \\\n  -H "Authorization: Bearer ${VARIABLE}"'
    token = f"curl {origin}/token \\\n  -d username=ada --data-urlencode password='…'"
    return [
        {"label": "Call models", "code": models, "language": "bash"},
        {"label": "Sign in for the management API", "code": token, "language": "bash"},
    ]


def _nouns(document: dict[str, Any], origin: str) -> list[Noun]:
    operations: dict[str, list[Operation]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            operations[operation["tags"][0]].append(_operation(document, origin, method.upper(), path, operation))
    return [
        Noun(
            tag["name"], TITLES.get(tag["name"], tag["name"].capitalize()), tag["description"], operations[tag["name"]]
        )
        for tag in document["tags"]
    ]


def _operation(document: dict[str, Any], origin: str, method: str, path: str, operation: dict[str, Any]) -> Operation:
    fields = [
        Field(parameter["name"], parameter["in"], kind_of(parameter["schema"]), parameter["required"])
        for parameter in operation.get("parameters", [])
    ]
    content = operation.get("requestBody", {}).get("content", {})
    body = next((_resolved(document, parameter["schema"]) for parameter in content.values()), None)
    fields += _members(body, "form" if FORM in content else "body") if body else []
    answers = []
    for status, answer in operation["responses"].items():
        response = _resolved(document, answer)
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        type_name = kind_of(schema) if schema and status < "400" else None
        answers.append(Answer(status, response["description"], type_name))
    return Operation(
        id=operation["operationId"],
        method=method,
        path=path,
        summary=operation["summary"],
        paragraphs=[" ".join(part.split()) for part in operation["description"].split("\n\n") if part],
        fields=fields,
        answers=answers,
        curl=_curl(origin, method, path, operation, body, FORM in content),
    )


def _objects(document: dict[str, Any]) -> list[tuple[str, str, list[Field]]]:
    """Every object that answers and bodies consist of."""
    return [
        (name, schema.get("description", ""), _members(schema, ""))
        for name, schema in sorted(document["components"]["schemas"].items())
    ]


def _members(schema: dict[str, Any], place: str) -> list[Field]:
    required = schema.get("required", ())
    return [
        Field(name, place, kind_of(member), name in required) for name, member in schema.get("properties", {}).items()
    ]


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    node: Any = schema
    while "$ref" in node:
        target = node["$ref"]
        node = document
        for part in target.removeprefix("#/").split("/"):
            node = node[part]
    answer: dict[str, Any] = node
    return answer


def kind_of(schema: dict[str, Any]) -> str:
    """A schema in words: the type of its values."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        kinds = list(dict.fromkeys(kind_of(option) for option in schema["anyOf"]))
        return " or ".join(kinds)
    if "enum" in schema:
        return " | ".join(str(option) for option in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {kind_of(schema.get('items', {}))}"
        case "object":
            return "object"
        case "integer" if "minimum" in schema and "maximum" in schema:
            return f"integer, {schema['minimum']} to {schema['maximum']}"
        case "string" if schema.get("format") == "date-time":
            return "time"
        case "string":
            return "text"
        case None:
            return "anything"
        case kind:
            return str(kind)


def _curl(
    origin: str, method: str, path: str, operation: dict[str, Any], body: dict[str, Any] | None, as_form: bool
) -> str:
    lines = [f"curl {'' if method == 'GET' else f'-X {method} '}'{origin}{path}'"]
    if operation["security"]:
        lines.append(f'-H "Authorization: Bearer ${TOKEN}"')
    if body and as_form:
        lines += [f"--data-urlencode {name}='…'" for name in body.get("required", ())]
    elif body:
        sample = {name: _sample(body["properties"][name]) for name in body.get("required", ())}
        lines += ['-H "Content-Type: application/json"', f"-d '{json.dumps(sample, ensure_ascii=False)}'"]
    return " \\\n  ".join(lines)


def _sample(schema: dict[str, Any]) -> Any:
    """A placeholder value."""
    if "anyOf" in schema:
        return _sample(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    return {"integer": 1, "boolean": True, "array": ["…"], "object": {}}.get(schema.get("type", ""), "…")
