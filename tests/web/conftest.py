"""A bare application with what `app.web` adds and nothing else: no database, no sign-in."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.web import init_web

TEMPLATES = Path(__file__).resolve().parents[2] / "app" / "templates"


@pytest.fixture
def web_app() -> Flask:
    app = Flask("web_under_test", template_folder=str(TEMPLATES), static_folder=None)
    app.config.update(SECRET_KEY="test", TESTING=True, CURRENCY="USD")
    init_web(app)
    return app


@pytest.fixture
def browser(web_app: Flask) -> FlaskClient:
    return web_app.test_client()
