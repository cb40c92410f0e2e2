"""Every revision goes up and down, and the last one is what the tables say, on SQLite and on PostgreSQL."""

from datetime import UTC, datetime
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

import app.blueprints.admin
import app.blueprints.api
import app.blueprints.portal
import app.blueprints.public  # noqa: F401  with the other doors it brings in every table
from app.extensions import MIGRATIONS, prepare
from app.runtime.ids import new_id


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_scopes_get_their_team_and_person_and_lose_them_again(
    alembic_runner: MigrationContext, alembic_engine: Engine
) -> None:
    team, person, key = new_id(), new_id(), new_id()
    member = f"{team}:{person}"
    when = datetime(2026, 1, 1, tzinfo=UTC)
    named = {("team", team): (team, None), ("user", person): (None, person), ("member", member): (team, person),
             ("key", key): (None, None), ("organisation", "default"): (None, None)}  # fmt: skip

    def kept(columns: str, table: str) -> dict[tuple[str, str], Any]:
        with alembic_engine.connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT scope_kind, scope_id, {columns} FROM {table}").all()
        return {(kind, id): tuple(rest) for kind, id, *rest in rows}

    alembic_runner.migrate_up_to("0013")
    alembic_runner.insert_into("person", {
        "id": person, "username": "ada", "role": "user", "scopes": [], "disabled": False,
        "must_change_password": False, "created_at": when,
    })  # fmt: skip
    budget = {"limit_nano": 7, "period": "month", "timezone": "UTC", "updated_at": when, "opening_nano": 0}
    request = {"person_id": person, "amount_nano": 7, "lasting": False, "reason": "x", "status": "pending",
               "created_at": when}  # fmt: skip
    for table, row in (("budget", budget), ("budget_request", request)):
        rows = [{"id": new_id(), "scope_kind": kind, "scope_id": id} | row for kind, id in named]
        alembic_runner.insert_into(table, rows)
    for go, has in ((alembic_runner.migrate_up_one, True), (alembic_runner.migrate_down_one, False)) * 2:
        go()
        assert kept("limit_nano", "budget") == dict.fromkeys(named, (7,))
        assert kept("amount_nano, person_id", "budget_request") == dict.fromkeys(named, (7, person))
        for table in ("budget", "budget_request"):
            assert ("team_id" in {column["name"] for column in inspect(alembic_engine).get_columns(table)}) is has
    alembic_runner.migrate_up_one()
    assert kept("team_id, person_id", "budget") == named
    assert kept("team_id", "budget_request") == {scope: (team_id,) for scope, (team_id, _) in named.items()}
