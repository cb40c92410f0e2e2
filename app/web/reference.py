"""The API's description, left by the door that serves the API for the door that shows it: no door knows another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, current_app

DESCRIPTION = "portico_api_description"  # in app.extensions


def tell(app: Flask, describe: Callable[[], dict[str, Any]]) -> None:
    """`describe` answers the OpenAPI document of what this process serves."""
    app.extensions[DESCRIPTION] = describe


def told() -> dict[str, Any] | None:
    """The document; None in a process without the management API."""
    describe = current_app.extensions.get(DESCRIPTION)
    return None if describe is None else describe()
