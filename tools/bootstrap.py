"""Creates `.venv` from the hashed lock file and runs a command in it. Uses only the standard library of Python 3.11 or
newer.

`make` calls it before everything else, so a fresh clone needs no extra step.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

OLDEST = (3, 11)
LOCKS = {"run": ["requirements.txt"], "dev": ["requirements.txt", "requirements-dev.txt"]}
USAGE = "usage: bootstrap.py run|dev [command ...]\n  run: what Portico runs on; dev: with the tools and tests too"


def say(text: str) -> None:
    print(f"portico: {text}", flush=True)


def stop(text: str) -> NoReturn:
    print(f"portico: {text}", file=sys.stderr, flush=True)
    sys.exit(2)


def use_a_new_enough_python() -> None:
    """Continues in the newest suitable Python on PATH if this one is too old."""
    if sys.version_info[:2] >= OLDEST:
        return
    for minor in range(14, OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            os.execv(found, [found, __file__, *sys.argv[1:]])
    stop(
        f"Python 3.11 or newer is needed; this is {sys.version_info[0]}.{sys.version_info[1]} and no newer one is"
        " on PATH. Install one, or name it: make PYTHON=/path/to/python3.12 ..."
    )


class Venv:
    """The virtual environment of one checkout, and what is known to be installed in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / ".venv"
        self.python = self.path / "bin" / "python"
        self.stamp = self.path / "installed.json"  # the hash of each installed lock file; written last
        self.unfinished = self.path / "unfinished"  # exists while the environment is being changed

    def ensure(self, kind: str) -> None:
        """Makes the environment contain what `kind` needs. Returns quickly if it already does."""
        digests = {name: self._hash(name) for name in LOCKS[kind]}
        if self._holds(digests):
            return
        cache = self.root / ".cache"
        cache.mkdir(exist_ok=True)
        with open(cache / "bootstrap.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second start waits until the first one is done
            if not self._holds(digests):
                self._repair()
                self._install(LOCKS[kind][-1], digests)

    def _hash(self, name: str) -> str:
        path = self.root / name
        if not path.exists():
            stop(f"{name} is missing; run `make lock` to create it")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def _holds(self, digests: dict[str, str]) -> bool:
        if self.unfinished.exists() or not self.python.exists():  # a link to a deleted Python counts as missing
            return False
        try:
            installed = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            return False
        return isinstance(installed, dict) and all(installed.get(name) == digest for name, digest in digests.items())

    def _repair(self) -> None:
        """Creates a fresh environment, unless the present one is complete and its pip works."""
        if self.path.exists():
            pip = [str(self.python), "-m", "pip", "--version"]
            sound = not self.unfinished.exists() and self.python.exists()
            if sound and subprocess.run(pip, capture_output=True).returncode == 0:
                return
            say("removing an incomplete .venv")
            shutil.rmtree(self.path)
        say(f"creating .venv with Python {platform.python_version()}")
        self.path.mkdir()
        self.unfinished.touch()
        result = subprocess.run([sys.executable, "-m", "venv", str(self.path)], capture_output=True, text=True)
        if result.returncode != 0:
            stop("cannot create .venv: " + (result.stdout + result.stderr).strip())

    def _install(self, lock: str, digests: dict[str, str]) -> None:
        say(f"installing {lock} (once; it takes a minute or two)")
        self.unfinished.touch()
        started = time.monotonic()
        # -qq: errors only. With some settings, pip warns once for each package.
        pip = [str(self.python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
        done = subprocess.run([*pip, "--require-hashes", "-r", str(self.root / lock)])
        if done.returncode != 0:
            if done.returncode > 0:
                self.unfinished.unlink()  # pip failed by itself and undid what it had started
            stop(f"installing {lock} failed; see pip's output above")
        draft = self.stamp.with_name("installed.json.new")
        draft.write_text(json.dumps(digests, indent=2) + "\n")
        draft.replace(self.stamp)
        self.unfinished.unlink()
        say(f"installed {lock} in {time.monotonic() - started:.0f} s")

    def run(self, command: list[str]) -> NoReturn:
        """Replaces this process by `command`, with the environment's programs first on PATH."""
        environ = dict(os.environ, VIRTUAL_ENV=str(self.path))
        environ["PATH"] = str(self.path / "bin") + os.pathsep + environ.get("PATH", os.defpath)
        environ.pop("PYTHONHOME", None)
        try:
            os.execvpe(command[0], command, environ)
        except OSError as error:
            stop(f"{command[0]}: {error.strerror}")


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in LOCKS:
        stop(USAGE)
    use_a_new_enough_python()
    venv = Venv(Path(__file__).resolve().parent.parent)
    try:
        venv.ensure(arguments[0])
        if len(arguments) > 1:
            venv.run(arguments[1:])
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
