"""The start of a background process: jobs run inside an application, once each, and wait for a busy database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask, current_app
from sqlalchemy import create_engine, text

from app.extensions import db
from app.jobs import process

ROOT = Path(__file__).resolve().parents[2]


def test_a_job_inside_of_an_application_uses_that_one(ledger: Flask) -> None:
    @process.job
    def which(*words: str, last: str) -> tuple[Flask, str]:
        """What it is for."""
        return current_app._get_current_object(), " ".join((*words, last))

    session = db.session()
    assert which("a", "b", last="c") == (ledger, "a b c")
    assert db.session() is session, "the caller's session goes on"
    assert (which.__name__, which.__doc__) == ("which", "What it is for.")


ALONE = """
import json
from flask import current_app
from app.extensions import db
from app.jobs import process
from sqlalchemy import text

@process.job
def work():
    patience = db.session.execute(text("PRAGMA busy_timeout")).scalar()
    return patience, current_app.config["PORTICO"].data_dir.name

print(json.dumps([work(), work(), process.start("worker") is process.start("worker")]))
"""


@pytest.mark.slow
def test_a_process_has_one_application_whose_jobs_wait_for_a_lock(tmp_path: Path) -> None:
    environ = {"CONFIG_STORAGE_DATA_DIR": str(tmp_path / "data"), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first, second, once = json.loads(done.stdout.splitlines()[-1])
    assert first == second == [process.SQLITE_WAIT_MS, "data"]
    assert once


def test_patience_is_for_connections_made_from_then_on(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}", connect_args={"timeout": 0.005})
    process.be_patient(engine)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == process.SQLITE_WAIT_MS
    engine.dispose()
