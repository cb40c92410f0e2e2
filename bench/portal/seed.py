"""A whole large organisation in an empty PostgreSQL database, in some ten minutes.

The schema comes from the migrations; indexes of the books are made after their rows. At the end the books check
themselves: a seed that differs from what posting would have left is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from app import create_app
from app.domain import identity, passwords, providers
from app.extensions import db, transaction
from app.ledger import rollups
from app.setup import migrate
from bench.gateway.builds import say
from bench.gateway.processes import CannotMeasure
from bench.portal import organisation, sums, use
from bench.portal.sizes import ADMIN, PASSWORD, Sizes
from config import load

BOOKS = ("usage_entry", "usage_hourly", "usage_rollup", "usage_cut")


def settings(url: str, folder: Path) -> dict[str, str]:
    """The environment of a Portico on the seeded database."""
    return {
        "CONFIG_DATABASE_URL": url,
        "CONFIG_STORAGE_DATA_DIR": str(folder),
        "CONFIG_AUTH_ADMIN_USERNAME": ADMIN,
        "CONFIG_AUTH_ADMIN_PASSWORD": PASSWORD,
        "CONFIG_DEMO_ENABLED": "false",
        "CONFIG_UPSTREAM_ALLOW_PRIVATE": "true",
    }


def seed(url: str, folder: Path, sizes: Sizes) -> float:
    """Fill the database at `url`; the seconds it took. Raises `CannotMeasure` for one that has people."""
    begun = time.monotonic()
    app = create_app(load(settings(url, folder)), ())
    with app.app_context():
        migrate()
        transaction(providers.ensure_endpoints)
        if not transaction(identity.first_admin, ADMIN, PASSWORD):
            raise CannotMeasure("The database is not empty: give --reuse to measure what is there.")
        secret = passwords.hashed(PASSWORD)
        with psycopg.connect(conninfo(url)) as connection:
            connection.execute("SET synchronous_commit = off")
            _told("people, models, keys and papers", begun)
            organisation.make(connection, sizes, secret)
            with _indexes_later(connection):
                connection.execute(f"TRUNCATE {', '.join(BOOKS)}".encode())  # new files, for which no log is due
                _told("the ledger's rows", begun)
                use.make(connection, sizes)
                _told("their sums", begun)
                sums.make(connection)
                _told("indexes", begun)
        with psycopg.connect(conninfo(url), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        _told("the books check themselves", begun)
        wrong = rollups.check(sample=200, seed=1)
        db.session.remove()
        db.engine.dispose()
    if wrong:
        raise CannotMeasure(f"The seeded sums are wrong: {wrong[0]}")
    return time.monotonic() - begun


def is_seeded(url: str) -> bool:
    """Whether the ledger has rows."""
    with psycopg.connect(conninfo(url)) as connection:
        found = connection.execute("SELECT to_regclass('usage_entry') IS NOT NULL").fetchone()
        if not found or not found[0]:
            return False
        counted = connection.execute("SELECT count(*) FROM (SELECT 1 FROM usage_entry LIMIT 1) AS one").fetchone()
    return bool(counted and counted[0])


def conninfo(url: str) -> str:
    """The URL as psycopg itself reads it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


@contextmanager
def _indexes_later(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Without the books' indexes while rows are added; they are made again in one go, as they were."""
    found = connection.execute(
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), i.indrelid::regclass::text,"
        " c.conname, pg_get_constraintdef(c.oid)"
        " FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid"
        " WHERE i.indrelid::regclass::text = ANY(%s)",
        (list(BOOKS),),
    ).fetchall()
    for index, _, table, constraint, _ in found:
        drop = f'ALTER TABLE {table} DROP CONSTRAINT "{constraint}"' if constraint else f"DROP INDEX {index}"
        connection.execute(drop.encode())
    yield
    connection.execute("SET LOCAL maintenance_work_mem = '1GB'")
    for _, definition, table, constraint, told in found:
        make = f'ALTER TABLE {table} ADD CONSTRAINT "{constraint}" {told}' if constraint else definition
        connection.execute(make.encode())


def _told(what: str, begun: float) -> None:
    say(f"{time.monotonic() - begun:.0f} s: {what}")
