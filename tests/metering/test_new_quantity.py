"""A new quantity is a line in the list, a migration and a line in an adapter: everything else follows, from a hold to a form.

The three are added to a copy of the application, which then reads an upstream's answer, posts it and shows it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

LAST = '    characters: Annotated[int, _of("Characters", "per_million_characters", "characters")] = 0\n'
LINE = """    smell_tokens: Annotated[
        int, _of("Smell", "smell_per_mtok", within="prompt_tokens", like="input_per_mtok")
    ] = 0
"""
READ = '    "smell_tokens": "smell_tokens",\n'
MIGRATION = '''"""Smells.

Revision ID: new
Revises: {head}
"""

import sqlalchemy as sa
from alembic import op

revision = "new"
down_revision = "{head}"
branch_labels = None
depends_on = None

TABLES = ("usage_entry", "usage_hourly", "usage_rollup", "usage_cut")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("smell_tokens", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("price", sa.Column("smell_per_mtok", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("price", "smell_per_mtok")
    for table in reversed(TABLES):
        op.drop_column(table, "smell_tokens")
'''


def add(file: Path, after: str, line: str) -> None:
    """Adds one line, which may be broken in several, after a text that stands there once."""
    before = file.read_text()
    assert before.count(after) == 1, f"{file.name} has no place for it"
    file.write_text(before.replace(after, after + line))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the application that has a quantity more."""
    made = tmp_path / "copy"
    for folder in ("app", "migrations"):
        shutil.copytree(ROOT / folder, made / folder)
    shutil.copy2(ROOT / "config.py", made)
    add(made / "app/metering/quantities.py", LAST, LINE)
    add(made / "app/providers/usage.py", "PROMPT_PARTS = {\n", READ)
    versions = made / "migrations/versions"
    head = max(file.name[:4] for file in versions.glob("[0-9]*.py"))
    (versions / "9999_new.py").write_text(MIGRATION.format(head=head))
    return made


def told_by(copy: Path, redis_url: str) -> dict[str, Any]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CONFIG_")} | {
        "CONFIG_STORAGE_DATA_DIR": str(copy.parent / "data"), "CONFIG_REDIS_URL": redis_url,
        "PYTHONPATH": f"{copy}{os.pathsep}{ROOT}",
    }  # fmt: skip
    script = ROOT / "tests/metering/new_quantity.py"
    done = subprocess.run([sys.executable, script], env=environ, capture_output=True, text=True, timeout=110, cwd=copy)
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_line_a_migration_and_a_line_in_an_adapter_bring_a_quantity_everywhere(copy: Path, redis_url: str) -> None:
    told = told_by(copy, redis_url)
    assert told.pop("application") == str(copy / "app/__init__.py")
    assert told == {
        "form": "price_smell_per_mtok",
        "made by the form": 303,
        "price of the form": "50",
        "price of a program": "50",
        "held": True,
        "event": 40,
        "cost": 60 * 1_000 + 40 * 50_000 + 5 * 2_000,
        "requests": [40, 40],
        "one request": 40,
        "total": 80,
        "export of requests": 80,
        "export of usage": 80,
        "export of the chargeback": 80,
        "header": True,
        "arithmetic": ["Smell"],
    }
