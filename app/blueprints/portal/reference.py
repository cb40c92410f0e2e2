"""The API reference: the management API from its own description, and what every caller of /v1 has to know.

The description is made of the code (`app.web.reference`); this page only arranges it, with this deployment's address.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from flask import Blueprint, Response

from app.blueprints.portal.snippets import VARIABLE, base_url
from app.gateway import errors
from app.gateway.errors import ApiError
from app.web import reference
from app.web.render import render

TOKEN = "PORTICO_TOKEN"
FORM = "application/x-www-form-urlencoded"
TITLES = {
    "auth": "Browser session",
    "openapi": "Description",
    "tokens": "Signing in",
    "users": "People",
    "audit": "Audit log",
}


class Field(NamedTuple):
    """One parameter or member: its name, where it stands, what it is, and whether it has to be given."""

    name: str
    place: str
    kind: str
    needed: bool


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
    _case("The model is unknown, or this key may not use it", errors.unknown_model("")),
    _case("Unknown path", errors.unknown_path("", "")),
    _case("Wrong method", errors.wrong_method("", "")),
    _case("The body is too large", errors.too_large(1)),
    Case("Too many requests a minute, or at a time", "429", "requests", "rate_limit_exceeded"),
    Case("Too many tokens a minute", "429", "tokens", "rate_limit_exceeded"),
    Case("A budget would be exceeded; the message names it", "429", "insufficient_quota", "insufficient_quota"),
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
    ("Retry-After", "With 429 and 503: the seconds to wait."),
    ("x-should-retry", "`false` where waiting does not help, such as a spent budget."),
    ("x-portico-max-tokens", "The output limit that a request without one was given, so that it fits the budget."),
)


bp = Blueprint("reference", __name__)


@bp.get("/reference")
def index() -> Response:
    base = base_url()
    origin = base.removesuffix("/v1")
    described = reference.document()
    return render(
        "portal/reference/index.html",
        nouns=_nouns(described, origin) if described else [],
        objects=_objects(described) if described else [],
        cases=CASES,
        headers=HEADERS,
        base_url=base,
        origin=origin,
        first=_first(base, origin),
    )


def _first(base: str, origin: str) -> list[dict[str, str]]:
    models = f'curl {base}/models \\\n  -H "Authorization: Bearer ${VARIABLE}"'
    token = f"curl {origin}/token \\\n  -d username=ada --data-urlencode password='…'"
    return [
        {"label": "Call models", "code": models, "language": "bash"},
        {"label": "Sign in for the management API", "code": token, "language": "bash"},
    ]


def _nouns(described: dict[str, Any], origin: str) -> list[Noun]:
    found: dict[str, list[Operation]] = {tag["name"]: [] for tag in described["tags"]}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            found[operation["tags"][0]].append(_operation(described, origin, method.upper(), path, operation))
    return [
        Noun(tag["name"], TITLES.get(tag["name"], tag["name"].capitalize()), tag["description"], found[tag["name"]])
        for tag in described["tags"]
    ]


def _operation(described: dict[str, Any], origin: str, method: str, path: str, told: dict[str, Any]) -> Operation:
    fields = [
        Field(one["name"], one["in"], kind_of(one["schema"]), one["required"]) for one in told.get("parameters", [])
    ]
    content = told.get("requestBody", {}).get("content", {})
    body = next((_resolved(described, one["schema"]) for one in content.values()), None)
    fields += _members(body, "form" if FORM in content else "body") if body else []
    answers = []
    for status, answer in told["responses"].items():
        found = _resolved(described, answer)
        schema = found.get("content", {}).get("application/json", {}).get("schema")
        told_as = kind_of(schema) if schema and status < "400" else None
        answers.append(Answer(status, found["description"], told_as))
    return Operation(
        id=told["operationId"],
        method=method,
        path=path,
        summary=told["summary"],
        paragraphs=[" ".join(part.split()) for part in told["description"].split("\n\n") if part],
        fields=fields,
        answers=answers,
        curl=_curl(origin, method, path, told, body, FORM in content),
    )


def _objects(described: dict[str, Any]) -> list[tuple[str, str, list[Field]]]:
    """Every object that answers and bodies are made of."""
    return [
        (name, schema.get("description", ""), _members(schema, ""))
        for name, schema in sorted(described["components"]["schemas"].items())
    ]


def _members(schema: dict[str, Any], place: str) -> list[Field]:
    needed = schema.get("required", ())
    return [Field(name, place, kind_of(one), name in needed) for name, one in schema.get("properties", {}).items()]


def _resolved(described: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    found: Any = given
    while "$ref" in found:
        at = found["$ref"]
        found = described
        for part in at.removeprefix("#/").split("/"):
            found = found[part]
    answer: dict[str, Any] = found
    return answer


def kind_of(schema: dict[str, Any]) -> str:
    """A schema in words: what a value of it is."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        kinds = list(dict.fromkeys(kind_of(one) for one in schema["anyOf"]))
        return " or ".join(kinds)
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
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


def _curl(origin: str, method: str, path: str, told: dict[str, Any], body: dict[str, Any] | None, as_form: bool) -> str:
    lines = [f"curl {'' if method == 'GET' else f'-X {method} '}'{origin}{path}'"]
    if told["security"]:
        lines.append(f'-H "Authorization: Bearer ${TOKEN}"')
    if body and as_form:
        lines += [f"--data-urlencode {name}='…'" for name in body.get("required", ())]
    elif body:
        sample = {name: _sample(body["properties"][name]) for name in body.get("required", ())}
        lines += ['-H "Content-Type: application/json"', f"-d '{json.dumps(sample, ensure_ascii=False)}'"]
    return " \\\n  ".join(lines)


def _sample(schema: dict[str, Any]) -> Any:
    """Something to stand for a value."""
    if "anyOf" in schema:
        return _sample(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    return {"integer": 1, "boolean": True, "array": ["…"], "object": {}}.get(schema.get("type", ""), "…")
