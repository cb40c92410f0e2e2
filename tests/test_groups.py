"""Tests that share what is dear to start run in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.groups import GROUPS, group_of

ROOT = Path(__file__).resolve().parents[1]
ONE, OTHER = "tests/one/test_one.py", "tests/one/test_other.py"

SHARING = """
import pytest

@pytest.mark.parametrize("number", range(8))
def test_a_part(number, worker_id):
    with open("ran", "a") as told:
        told.write(worker_id + " ")
"""

CONFTEST = f"""
import tests.groups

tests.groups.GROUPS = {{{ONE!r}: "one", {OTHER!r}: "one"}}
from tests.conftest import pytest_xdist_make_scheduler
"""


def test_every_file_of_a_group_is_there() -> None:
    assert [path for path in GROUPS if not (ROOT / path).is_file()] == []


def test_a_file_without_a_group_has_no_company() -> None:
    assert group_of("tests/test_clock.py::test_a") != group_of("tests/test_clock.py::test_b")
    assert group_of("tests/faults/test_faults.py::test_a[b::c]") == group_of("tests/faults/test_processes.py::test_d")


@pytest.mark.slow
def test_a_group_runs_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for path in (ONE, OTHER):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(SHARING)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-p", "no:schemathesis",
               "--import-mode=importlib", "--rootdir", tmp_path, tmp_path]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = (tmp_path / "ran").read_text().split()
    assert (len(ran), len(set(ran))) == (16, 1)
