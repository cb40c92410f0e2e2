"""Every revision goes up and down, and the last one is what the tables say, on SQLite and on PostgreSQL."""

from pathlib import Path
from typing import Any

import pytest
from pytest_alembic import MigrationContext
from pytest_alembic.tests import (  # noqa: F401
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Engine, create_engine, inspect

from app.extensions import MIGRATIONS, prepare


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def alembic_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path / 'portico.db'}")
        prepare(engine)
        return engine
    url: str = request.getfixturevalue("postgres_url")
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


@pytest.fixture
def alembic_config() -> dict[str, Any]:
    return {"file": str(MIGRATIONS / "alembic.ini"), "script_location": str(MIGRATIONS)}


def test_names_are_unique_whatever_their_case_in_the_database_too(
    alembic_runner: MigrationContext, alembic_engine: Engine
) -> None:
    alembic_runner.migrate_up_to("heads")
    if alembic_engine.dialect.name == "postgresql":
        names = {index["name"] for table in ("person", "provider", "subscription")
                 for index in inspect(alembic_engine).get_indexes(table)}  # fmt: skip
        assert {"uq_person_username", "uq_provider_name", "uq_subscription_live"} <= names
    else:
        with alembic_engine.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE name LIKE 'uq%' AND sql IS NOT NULL"
            )
            assert {"uq_person_username", "uq_provider_name", "uq_subscription_live"} <= {row[0] for row in rows}
