"""The migration of the ledger goes up and down and makes exactly the tables that the code declares."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as Alembic
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from app.extensions import MIGRATIONS, Base
from app.ledger.budgets import SPENT
from app.ledger.entries import DEAD, ENTRY, TAGGED
from app.ledger.rollups import HOURLY, ROLLUP
from app.ledger.summaries import CUT
from app.ledger.unpriced import UNPRICED

TABLES = {table.name for table in (ENTRY, TAGGED, UNPRICED, DEAD, SPENT, HOURLY, ROLLUP, CUT)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=[pytest.mark.services, pytest.mark.both_databases])]
)
def test_the_ledger_migrates_up_and_down(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    if database == "postgresql":
        url = request.getfixturevalue("postgres_url")
    alembic = Alembic(str(MIGRATIONS / "alembic.ini"))
    alembic.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(url)
    for _ in range(2):
        with engine.begin() as connection:
            alembic.attributes["connection"] = connection
            command.upgrade(alembic, "heads")
            assert set(inspect(connection).get_table_names()) >= TABLES
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection,
                opts={
                    "compare_type": True,
                    "include_name": lambda name, kind, _: kind != "table" or name in TABLES,
                    "include_object": lambda item, name, kind, *_: kind != "table" or name in TABLES,
                },
            )
            assert compare_metadata(context, Base.metadata) == []
        with engine.begin() as connection:
            alembic.attributes["connection"] = connection
            command.downgrade(alembic, "0001")
            assert not TABLES & set(inspect(connection).get_table_names())
    engine.dispose()
