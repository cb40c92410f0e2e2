"""Holds what the management API answers to what its description says: the status is one that it names, the body fits."""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import Flask, Response, request, request_finished
from jsonschema_rs import Draft202012Validator

from app.blueprints.api.openapi import document


@cache
def validator(operation: str, status: str) -> Draft202012Validator | None:
    """What the body of one answer has to fit; None for one without a body. Raises KeyError for one not described."""
    described = document()
    found = next(
        one for path in described["paths"].values() for one in path.values() if one["operationId"] == operation
    )["responses"][status]
    if "$ref" in found:
        found = described["components"]["responses"][found["$ref"].rpartition("/")[2]]
    if "content" not in found:
        return None
    if "application/json" not in found["content"]:
        return Draft202012Validator({"type": "null"})  # a file, which is no JSON
    schema = {**found["content"]["application/json"]["schema"], "components": described["components"]}
    return Draft202012Validator(schema, validate_formats=True)


def fault(operation: str, answer: Any) -> str | None:
    """What is wrong with an answer, None when it is as described."""
    try:
        fits = validator(operation, str(answer.status_code))
    except KeyError:
        return f"{operation} answered {answer.status_code}, which is not described: {answer.get_data(as_text=True)}"
    if fits is None:
        return f"{operation} answered {answer.status_code} with a body" if answer.get_data() else None
    error = next(fits.iter_errors(answer.get_json(silent=True)), None)
    return error and f"{operation} answered {answer.status_code}: {error.instance_path}: {error.message}"


def watch(app: Flask) -> list[str]:
    """Looks at every answer of `app`'s API from now on; the list fills with what was not as described."""
    known: list[str] | None = app.extensions.get("described")
    if known is not None:  # an application that served an earlier test
        known.clear()
        return known
    faults: list[str] = []
    app.extensions["described"] = faults

    def compare(_: Flask, response: Response) -> None:
        door, _, operation = (request.endpoint or "").partition(".")
        if door == "api" and request.method != "HEAD" and (found := fault(operation, response)):
            faults.append(found)

    request_finished.connect(compare, app, weak=False)  # also on an application that has served others

    return faults
