"""The operators' commands: what they say last, and their exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

from app import __main__ as commands
from app.domain import audit
from app.extensions import db, transaction
from config import Config
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


@pytest.fixture
def run(app: Flask, config: Config, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """Runs a command with the settings of this test."""
    monkeypatch.setattr(commands, "load", lambda: config)
    monkeypatch.setattr(commands.logs, "configure", lambda *_: None)
    monkeypatch.setattr(commands, "create_app", lambda *_: app)
    return lambda *words: commands.main(words)


def test_audit_verify_says_whether_the_log_is_intact(
    people: People,  # noqa: F811
    run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = [transaction(audit.record, people.admin, "thing.act", "thing", "1").id for _ in range(3)]
    assert run("audit", "verify") == 0
    assert "The audit log is intact: " in capsys.readouterr().out.splitlines()[-1]
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE audit_entry SET actor = 'nobody' WHERE id = :id"), {"id": ids[1]})
    assert run("audit", "verify") == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"entry {ids[1]} was edited.")


def test_a_command_that_cannot_work_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONFIG_FILE", str(tmp_path / "none.yml"))
    assert commands.main(("audit", "verify")) == 2
    assert "This could not be done: CONFIG_FILE" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        commands.main(("nothing",))
    assert ended.value.code == 2
