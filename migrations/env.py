"""How Alembic reaches the database: by a connection it is given, else by the application's, else by the settings'.

SQLite cannot alter most things in place, so tables are copied there (batch mode), with foreign keys off meanwhile.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from alembic import context
from flask import has_app_context
from sqlalchemy import Connection, Engine, create_engine

import config as settings
from app.extensions import Base, UtcDateTime, db, prepare

# A table is known once its module is loaded.
for room in ("app.domain", "app.ledger", "app.workflows"):
    for found in iter_modules(import_module(room).__path__, f"{room}."):
        import_module(found.name)


def render_item(kind: str, item: Any, autogen_context: Any) -> str | bool:
    """Writes our own column type by what it stands on, so that old revisions do not need it."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


# Indexes over expressions, which cannot be compared on every database, and those that only PostgreSQL has.
BY_HAND = {
    "uq_person_username", "uq_provider_name", "uq_subscription_live",
    "ix_api_key_expires_last", "ix_api_key_grams", "ix_api_key_models", "ix_audit_entry_grams", "ix_delivery_grams",
}  # fmt: skip


def include_object(item: Any, name: str | None, kind: str, reflected: bool, compared_to: Any) -> bool:
    """Revisions name some indexes by hand."""
    return not (kind == "index" and name in BY_HAND)


def engine() -> Engine:
    if has_app_context():
        return db.engine
    made = create_engine(settings.load().database_url)
    prepare(made)
    return made


def migrate(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    if sqlite and not connection.in_transaction():
        connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=sqlite,
        render_item=render_item,
        include_object=include_object,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    if sqlite and not connection.in_transaction():
        connection.connection.cursor().execute("PRAGMA foreign_keys = ON")


def run() -> None:
    if context.is_offline_mode():
        context.configure(url=settings.load().database_url, target_metadata=Base.metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    given = context.config.attributes.get("connection")
    if isinstance(given, Connection):
        migrate(given)
        return
    with (given or engine()).connect() as connection:
        migrate(connection)


run()
