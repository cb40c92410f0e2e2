"""The job `backups`: it makes one when the settings say so."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from flask import Flask

from app import current
from app.jobs import backups
from app.workflows import backups as made_backups


def test_the_job_makes_a_backup_when_one_is_due(inside: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backups.run()
    config = current.config()
    on = msgspec.structs.replace(config, backup=msgspec.structs.replace(config.backup, folder=str(tmp_path)))
    monkeypatch.setattr(current, "config", lambda: on)
    backups.run()
    backups.run()
    assert len(made_backups.made_by_itself(tmp_path)) == 1
