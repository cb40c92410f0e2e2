"""For commands that work on what the portal has: its settings, database and secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app import create_app
from app.runtime import logs
from config import load


@contextmanager
def portal() -> Iterator[None]:
    """The app's context, by the settings of the running Portico. Raises `ConfigError`."""
    config = load()
    logs.configure(config, "command")
    with create_app(config, ()).app_context():
        yield
