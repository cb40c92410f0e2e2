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


def test_config_apply_brings_the_state_to_a_file_once(
    people: People,  # noqa: F811
    run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "portico.yml"
    file.write_text("portico: 1\nproviders: [{name: Echo, provider: echo}]\nmodels: [{name: small}]\n")
    assert run("config", "apply", "--file", str(file), "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "It would be: 2 created, 0 updated, 0 deleted."
    assert run("config", "apply", "--file", str(file)) == 0
    assert capsys.readouterr().out.splitlines()[0] == "create provider Echo"
    assert run("config", "apply", "--file", str(file)) == 0
    assert capsys.readouterr().out == "Done: nothing to change.\n"
    file.write_text(
        "portico: 1\nmodels: [{name: small, status: hidden}]\nproviders: [{name: New, provider: openai, secrets: [api_key]}]"
    )
    assert run("config", "apply", "--file", str(file), "--prune") == 0
    said = capsys.readouterr().out.splitlines()
    assert '  status: "active" -> "hidden"' in said
    assert "New is disabled until somebody enters its api_key" in said
    assert said[-1] == "Done: 1 created, 1 updated, 1 deleted."


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("portico: 2", "config.portico: "),
        ("{", "cannot be read"),
        ("portico: 1\nmodels: [{name: a b}]", "config.models[0].name: "),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(
    people: People,  # noqa: F811
    run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    document: str,
    reason: str,
) -> None:
    file = tmp_path / "portico.json"
    file.write_text(document)
    assert run("config", "apply", "--file", str(file)) == 2
    assert reason in capsys.readouterr().err
    assert run("config", "apply", "--file", str(tmp_path / "none")) == 2


def test_a_command_that_cannot_work_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONFIG_FILE", str(tmp_path / "none.yml"))
    assert commands.main(("audit", "verify")) == 2
    assert "This could not be done: CONFIG_FILE" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        commands.main(("nothing",))
    assert ended.value.code == 2
