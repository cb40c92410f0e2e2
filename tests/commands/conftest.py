"""Commands as an operator gives them, with the settings of the test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from app.__main__ import main
from app.commands import portal
from config import Config
from tests.house import (  # noqa: F401
    app,
    config,
    database_url,
    home,
    inside,
    migrated,
    people,
    quick_hashes,
    valkey_url,
    wire,
)


@pytest.fixture
def run(app: Flask, config: Config, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`run(*words)` gives a command; its exit status."""
    monkeypatch.setattr(portal, "load", lambda: config)
    monkeypatch.setattr(portal.logs, "configure", lambda *_: None)
    monkeypatch.setattr(portal, "create_app", lambda *_: app)
    return lambda *words: main(list(words))
