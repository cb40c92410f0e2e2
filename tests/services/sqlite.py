"""SQLite without waiting for the disk: what a power cut would leave is not what tests ask for, and a busy disk is slow."""

from __future__ import annotations

import sqlite3

from sqlalchemy import Engine, event


def trust_the_machine(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA synchronous = OFF")


def trust_the_machine_always(engine: Engine) -> None:
    """For each connection that is made from now on; nothing on other databases."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: trust_the_machine(connection))
