"""The management API as an OpenAPI 3.1 document, built from what its routes declare.

Nothing is written twice: paths, queries, bodies and answers come from `contract.OPERATIONS`, sentences are the
docstrings of the functions and Structs, and a route's refusals follow from its scope, method and inputs.
"""

from __future__ import annotations

import inspect
import re
import sys
from functools import cache
from types import UnionType as Union
from typing import Any, get_args

import msgspec
from msgspec.inspect import DateTimeType, DictType, Field, ListType, StructType, Type, UnionType, type_info

from app.blueprints.api.contract import (
    CONDITIONAL,
    OPERATIONS,
    SAFE_METHODS,
    TAKE_BODIES,
    VERSIONS,
    Operation,
    Paged,
    Refusal,
    route,
)
from app.workflows.status import version

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
REFERENCE = "#/components/schemas/{name}"
PARAMETER = re.compile(r"<(?:\w+(?:\([^>]*\))?:)?(\w+)>")
SENTENCE = re.compile(r"(.+?[.!?])(?=\s|$)", re.DOTALL)

REFUSALS = {
    400: ("BadRequest", "The body is not a JSON object, or cannot be read at all."),
    401: ("Unauthenticated", "No access token, one that is not valid, or a wrong password."),
    403: ("Forbidden", "The role or the token's scope does not allow this; a session's CSRF token may be missing."),
    404: ("NotFound", "It does not exist, or you cannot see it."),
    408: ("RequestTimeout", "The body did not arrive in time."),
    409: ("Conflict", "The current state does not allow it, or somebody else changed it at the same moment."),
    412: ("PreconditionFailed", "The object has changed since the version in `If-Match`; nothing was changed."),
    413: ("TooLarge", "The body is too large."),
    422: ("InvalidField", "A value cannot be used; `field` names it."),
    429: (
        "TooMany",
        "Too many attempts in a minute, or more than a limit or a budget allows; `Retry-After` says when to try again.",
    ),
    502: ("UpstreamFailed", "No provider of the model could answer."),
    503: ("Unavailable", "A database or Redis does not answer at the moment; nothing was changed."),
    504: ("UpstreamTimeout", "No provider of the model answered in time."),
}
HEADERS = {
    401: {"WWW-Authenticate": "The scheme to sign in with."},
    429: {"Retry-After": "Seconds until it is worth trying again."},
    503: {"Retry-After": "Seconds until it is worth trying again."},
}
ABOUT = """Everything that people do in the portal, for programs.

Sign in at `POST /token` and send `Authorization: Bearer <access_token>`. Money is a decimal text in the deployment's
currency, times are RFC 3339 in UTC, ids are opaque. Lists answer `data`, `page`, `limit` and `total`; `total` is exact up
to 10,000, then null. One object that can be changed bears an `ETag`; a PUT, PATCH or DELETE with a stale `If-Match` is
refused with 412 and changes nothing. Refusals bear one shape: `error` with `code`, `message` and `field`.

Calls of models (`/v1`) speak OpenAI's own API and take API keys; they are described at /reference#v1.
"""


@route("GET", "/api/openapi.json", scope="any", answer=dict[str, Any])
def description() -> dict[str, Any]:
    """This document."""
    return document()


@cache
def document() -> dict[str, Any]:
    """Returns the whole document. It depends only on the code, so it is built once."""
    operations = sorted(OPERATIONS, key=lambda operation: (operation.noun, operation.rule, operation.method))
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        at = paths.setdefault(path_of(operation.rule), {})
        at[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Portico", "version": version(), "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [_tag(noun) for noun in dict.fromkeys(operation.noun for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {name: _refusal(status, text, schemas) for status, (name, text) in REFUSALS.items()},
            "securitySchemes": {
                "accessToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token of `POST /token`, or a long-lived one that an admin issued.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "portico_session",
                    "description": "A browser's session, begun at `/sign-in` or `POST /api/auth/login`.",
                },
                "csrf": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-CSRFToken",
                    "description": "The session's CSRF token; with a session, everything that changes something needs it.",
                },
            },
        },
    }


def path_of(rule: str) -> str:
    """Returns Flask's rule as OpenAPI writes it."""
    return PARAMETER.sub(r"{\1}", rule)


def statuses(operation: Operation) -> list[int]:
    """Returns every status that a route may answer with, the usual one first."""
    changes = operation.method not in SAFE_METHODS
    reads = operation.method in TAKE_BODIES  # a body, if only to refuse it
    parameters = PARAMETER.search(operation.rule) is not None
    fields = operation.body.__struct_fields__ if operation.body is not None else ()
    asked = operation.query.__struct_fields__ if operation.query is not None else ()
    # what may be out of reach
    refers_to_another = "team_id" in fields or {"scope", "id"} <= set(fields) or "key_id" in asked
    possible = {
        400: reads,
        401: operation.scope is not None or reads,
        403: changes or operation.scope != "any",
        408: changes,
        409: changes,
        412: operation.method in CONDITIONAL,
        413: reads,
        422: reads or operation.query is not None or parameters,
        404: parameters or refers_to_another or operation.calls or operation.may_be_absent,
        429: operation.throttled or operation.calls or operation.file is not None,
        502: operation.calls,
        503: True,
        504: operation.calls,
    }
    return [operation.status, *operation.also, *(status for status, known in possible.items() if known)]


class _Schemas:
    """The Structs of all operations as schemas, each under its own name."""

    def __init__(self, operations: list[Operation]) -> None:
        types: dict[Any, None] = {Refusal: None}
        for operation in operations:
            types.update({kind: None for kind in (operation.body, *_kinds(operation.answer)) if kind is not None})
        written, components = msgspec.json.schema_components(list(types), ref_template=REFERENCE)
        self.components: dict[str, Any] = components
        self._written = dict(zip(types, written, strict=True))
        for kind in types:
            _mark_times(type_info(kind), components, set())
        for schema in components.values():
            if "description" in schema:
                schema["description"] = inspect.cleandoc(schema["description"])

    def of(self, kind: Any) -> dict[str, Any]:
        """Returns `kind` as a reference; a union as any of its members."""
        written = [self._written[one] for one in _kinds(kind)]
        return written[0] if len(written) == 1 else {"anyOf": written}


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if isinstance(kind, Union) else (kind,)


def _mark_times(kind: Type, components: dict[str, Any], seen: set[Any]) -> None:
    """Marks every time in `kind` as a date-time. msgspec does so only for types that refuse a missing zone."""
    match kind:
        case StructType(cls=cls) if cls not in seen:
            seen.add(cls)
            for field in kind.fields:
                _mark_times(field.type, components, seen)
                if _is_time(field):
                    schema = components[cls.__name__]["properties"][field.encode_name]
                    _text_of(schema)["format"] = "date-time"
        case UnionType(types=types):
            for one in types:
                _mark_times(one, components, seen)
        case ListType(item_type=item):
            _mark_times(item, components, seen)
        case DictType(value_type=value):
            _mark_times(value, components, seen)
        case _:
            pass


def _is_time(field: Field) -> bool:
    sorts = field.type.types if isinstance(field.type, UnionType) else (field.type,)
    return any(isinstance(sort, DateTimeType) for sort in sorts)


def _text_of(schema: dict[str, Any]) -> dict[str, Any]:
    """The part of a schema that describes a text."""
    part: dict[str, Any] = next(option for option in schema.get("anyOf", [schema]) if option.get("type") == "string")
    return part


def _operation(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    match = SENTENCE.match(operation.text)
    summary, rest = (match[1], operation.text[match.end() :]) if match else (operation.text, "")
    description: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.noun],
        "summary": " ".join(summary.split()),
        "description": _words(rest, _own_words(operation.query), _needed(operation)),
        "security": _security(operation),
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_conditions(operation)],
        "responses": {str(status): _answer(operation, status, schemas) for status in statuses(operation)},
    }
    if operation.body is not None:
        kinds = [FORM, JSON] if operation.form else [JSON]
        description["requestBody"] = {
            "required": any(field.required for field in _struct(operation.body).fields),
            "content": {kind: {"schema": schemas.of(operation.body)} for kind in kinds},
        }
    return {name: value for name, value in description.items() if value != [] or name == "security"}


def _own_words(kind: type | None) -> str:
    return inspect.cleandoc(kind.__doc__) if kind and kind is not Paged and kind.__doc__ else ""


def _words(*parts: str) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _needed(operation: Operation) -> str:
    match operation.scope:
        case None:
            return "Needs no sign-in."
        case "any":
            return "Takes every valid access token."
        case "admin" if operation.method in SAFE_METHODS:
            return "Needs the scope `admin` and the role admin or admin-readonly."
        case "admin":
            return "Needs the scope and the role `admin`."
        case scope:
            return f"Needs the scope `{scope}`."


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.scope is None:
        return []
    session: dict[str, list[str]] = {"session": []}
    if operation.method not in SAFE_METHODS:
        session["csrf"] = []
    return [{"accessToken": [] if operation.scope == "any" else [operation.scope]}, session]


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in PARAMETER.findall(operation.rule)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    _, components = msgspec.json.schema_components([operation.query], ref_template=REFERENCE)
    _mark_times(type_info(operation.query), components, set())
    properties = components[operation.query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "allowEmptyValue": True, "schema": _parameter_schema(schema)}
        for name, schema in properties.items()
    ]


def _conditions(operation: Operation) -> list[dict[str, Any]]:
    if operation.method not in CONDITIONAL or operation.rule not in VERSIONS:
        return []
    words = "The `ETag` of the version that you want to change. Without it, any version is changed."
    return [{"name": "If-Match", "in": "header", "required": False, "description": words, "schema": {"type": "string"}}]


def _parameter_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is absent where a field would be null."""
    if "anyOf" not in schema:
        return schema
    (schema_of_value,) = (one for one in schema["anyOf"] if one.get("type") != "null")
    return dict(schema_of_value)


def _answer(operation: Operation, status: int, schemas: _Schemas) -> dict[str, Any]:
    if status in REFUSALS:
        return {"$ref": f"#/components/responses/{REFUSALS[status][0]}"}
    if operation.file is not None:
        kind = "object" if operation.file == "application/json" else "string"
        return {"description": "The file.", "content": {operation.file: {"schema": {"type": kind}}}}
    if operation.answer is None:
        return {"description": "Done."}
    words = {200: "The object.", 201: "Created.", 202: "Started."}[status]
    description: dict[str, Any] = {"description": words, "content": {JSON: {"schema": schemas.of(operation.answer)}}}
    if operation.rule in VERSIONS:
        tag = "The version: send it as `If-Match` with a change that must not overwrite somebody else's."
        description["headers"] = {"ETag": {"description": tag, "schema": {"type": "string"}}}
    return description


def _refusal(status: int, text: str, schemas: _Schemas) -> dict[str, Any]:
    description: dict[str, Any] = {"description": text, "content": {JSON: {"schema": schemas.of(Refusal)}}}
    if status in HEADERS:
        description["headers"] = {
            name: {"description": words, "schema": {"type": "string"}} for name, words in HEADERS[status].items()
        }
    return description


def _struct(kind: type[msgspec.Struct]) -> StructType:
    struct = type_info(kind)
    assert isinstance(struct, StructType)
    return struct


def _tag(noun: str) -> dict[str, str]:
    """A module of this door is a noun. Its docstring becomes the description of the tag."""
    return {"name": noun, "description": inspect.getdoc(sys.modules[f"{__package__}.{noun}"]) or ""}
