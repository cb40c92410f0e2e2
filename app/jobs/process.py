"""What each background process starts with: settings, logs, and the application that jobs run in.

They have no greenlets, so on SQLite they may wait for a lock, which a web worker must not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from flask import Flask, has_app_context
from sqlalchemy import event
from sqlalchemy.engine import Engine

import config as settings
from app import logs
from tools.orphans import forks_die_with_us

SQLITE_WAIT_MS = 10_000

P = ParamSpec("P")
T = TypeVar("T")


@cache
def start(name: str) -> settings.Config:
    """The settings of this process, with its logs configured; `name` is the one of the Procfile.

    What it forks from now on does not outlive it.
    """
    forks_die_with_us()
    config = settings.load()
    logs.configure(config, name)
    return config


@cache
def application() -> Flask:
    """The cold side without doors, made once a process; a forked child gets connections of its own."""
    from app import create_app
    from app.extensions import db

    app = create_app(settings.load(), frozenset())
    with app.app_context():
        engine = db.engine
    be_patient(engine)
    os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))
    return app


def be_patient(engine: Engine) -> None:
    """Let SQLite wait up to ten seconds for a lock."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def wait(connection: Any, record: Any) -> None:
            connection.execute(f"PRAGMA busy_timeout = {SQLITE_WAIT_MS}")


def job(function: Callable[P, T]) -> Callable[P, T]:
    """Makes a function one that RQ may call: it runs inside the application, whose session ends with it."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if has_app_context():
            return function(*args, **kwargs)
        with application().app_context():
            return function(*args, **kwargs)

    return run
