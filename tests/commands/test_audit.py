"""`audit verify`, as an operator gives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from app.domain import audit
from app.extensions import db, transaction
from tests.house import (  # noqa: F401
    People,
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


def test_audit_verify_says_whether_the_log_is_intact(
    people: People,  # noqa: F811
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = [transaction(audit.record, people.admin, "thing.act", "thing", "1").id for _ in range(3)]
    assert run("audit", "verify") == 0
    assert "The audit log is intact: " in capsys.readouterr().out.splitlines()[-1]
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE audit_entry SET actor = 'nobody' WHERE id = :id"), {"id": ids[1]})
    assert run("audit", "verify") == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"entry {ids[1]} was edited.")
