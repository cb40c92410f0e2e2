"""The OpenAPI document of the management API. The `api` door registers it and the portal shows it, because no door
imports another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, current_app

DESCRIPTION = "portico_api_description"  # in app.extensions


def register_document(app: Flask, describe: Callable[[], dict[str, Any]]) -> None:
    """Registers `describe`, which returns the OpenAPI document of what this process serves."""
    app.extensions[DESCRIPTION] = describe


def document() -> dict[str, Any] | None:
    """Returns the document, or None in a process without the management API."""
    describe = current_app.extensions.get(DESCRIPTION)
    return None if describe is None else describe()
