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


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.services, pytest.mark.both_databases])])
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


def test_sums_stay_as_they_are_while_their_keys_change(
    alembic_runner: MigrationContext, alembic_engine: Engine
) -> None:
    texts = dict.fromkeys(("person_id", "key_id", "team_id", "subscription_id", "model", "provider_id", "endpoint",
                           "api_type"), "")  # fmt: skip
    numbers = dict.fromkeys(("errors", "cancelled", "prompt_tokens", "cached_tokens", "completion_tokens", "images",
                             "audio_ms", "cost_nano", "overdraft_nano", "duration_ms", "ttft_ms", "ttft_count"), 0)  # fmt: skip
    rows = [
        texts | numbers | {"stream": False, "group_key": key, "kind": kind, "start_ms": start, "requests": start + 1}
        for key in ("a", "b") for kind in ("day", "week") for start in (0, 604_800_000)
    ]  # fmt: skip

    def kept() -> list[Any]:
        with alembic_engine.connect() as connection:
            return [
                connection.exec_driver_sql(
                    f"SELECT group_key, kind, start_ms, requests FROM {table} ORDER BY group_key, kind, start_ms"
                ).all()
                for table in ("usage_rollup", "usage_cut")
            ]

    alembic_runner.migrate_up_to("0011")
    alembic_runner.insert_into("usage_rollup", rows)
    alembic_runner.insert_into("usage_cut", [row | {"cut": "whole"} for row in rows])
    before = kept()
    assert [len(found) for found in before] == [8, 8]
    for go in (alembic_runner.migrate_up_one, alembic_runner.migrate_down_one, alembic_runner.migrate_up_one):
        go()
        assert kept() == before
