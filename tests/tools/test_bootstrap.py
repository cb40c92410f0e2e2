"""The first step of every `make`: an environment that is whole, whatever happened to the one before.

Each test has a checkout of its own with locks that name one tiny package, so that nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).resolve().parents[2] / "tools" / "bootstrap.py"

pytestmark = pytest.mark.slow


class Checkout:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "tools").mkdir(parents=True)
        shutil.copy(BOOTSTRAP, root / "tools" / "bootstrap.py")
        self.lock("requirements.txt", "1.0")
        self.lock("requirements-dev.txt", "1.0")

    def lock(self, name: str, version: str, digest: str | None = None) -> None:
        wheel = self.root / f"tiny-{version}-py3-none-any.whl"
        files = {
            "tiny.py": f"VERSION = {version!r}\n",
            f"tiny-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
            f"tiny-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in {**files, f"tiny-{version}.dist-info/RECORD": record}.items():
                archive.writestr(path, text)
        digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.root / name).write_text(f"tiny @ {wheel.as_uri()} --hash=sha256:{digest}\n")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.root / "tools" / "bootstrap.py"), *arguments]

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, cwd=self.root, env=os.environ | environ
        )

    def version(self, kind: str = "run") -> str:
        done = self.run(kind, "python", "-c", "import tiny; print(tiny.VERSION)")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


def test_the_first_start_installs_and_the_second_does_not(checkout: Checkout) -> None:
    first = checkout.run("run", "python", "-c", "import sys, tiny; print(sys.prefix)")
    assert [line.split(" ")[1] for line in first.stdout.splitlines()[:3]] == ["creating", "installing", "installed"]
    assert first.stdout.splitlines()[-1] == str(checkout.root / ".venv")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert checkout.run("run", "true").stdout == ""
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1  # of the processor: it may be busy


def test_a_changed_lock_is_installed_in_the_same_environment(checkout: Checkout) -> None:
    assert checkout.version() == "1.0"
    checkout.lock("requirements.txt", "2.0")
    checkout.lock("requirements-dev.txt", "2.0")
    assert checkout.version("dev") == "2.0"
    assert checkout.run("run", "true").stdout == ""  # the larger set holds the smaller one


def test_an_environment_that_was_killed_while_being_made_is_made_anew(checkout: Checkout) -> None:
    with subprocess.Popen(checkout.command("run"), cwd=checkout.root, start_new_session=True) as making:
        while not (checkout.root / ".venv" / "bin").exists():
            time.sleep(0.01)
        os.killpg(making.pid, signal.SIGKILL)
    done = checkout.run("run")
    assert "removing an incomplete .venv" in done.stdout
    assert checkout.version() == "1.0"


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    checkout.run("run")
    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert checkout.version() == "1.0"


def test_a_package_with_another_hash_is_refused_and_what_was_there_still_works(checkout: Checkout) -> None:
    assert checkout.version() == "1.0"
    whole = (checkout.root / "requirements.txt").read_text()
    checkout.lock("requirements.txt", "2.0", digest="0" * 64)
    refused = checkout.run("run", "true")
    assert refused.returncode == 2
    assert "installing requirements.txt failed" in refused.stderr
    (checkout.root / "requirements.txt").write_text(whole)
    assert checkout.run("run", "true").stdout == ""


def test_what_pip_only_warns_of_is_not_shown_and_its_errors_are(checkout: Checkout) -> None:
    lock = checkout.root / "requirements.txt"
    lock.write_text("tiny==1.0" + lock.read_text().partition(".whl")[2])  # looked for, in places that are not all there
    warned = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{checkout.root} /nowhere"}
    done = checkout.run("run", **warned)
    assert (done.returncode, done.stderr) == (0, "")
    lock.write_text(f"tiny==2.0 --hash=sha256:{'0' * 64}\n")
    shown = checkout.run("run", **warned).stderr
    assert "No matching distribution found for tiny==2.0" in shown
    assert "WARNING" not in shown


def test_two_first_starts_at_once_make_one_environment(checkout: Checkout) -> None:
    both = [
        subprocess.Popen(checkout.command("run", "true"), cwd=checkout.root, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said.count("creating .venv") == 1
    assert set(json.loads((checkout.root / ".venv" / "installed.json").read_text())) == {"requirements.txt"}


def test_the_commands_exit_code_is_ours(checkout: Checkout) -> None:
    assert checkout.run("run", "python", "-c", "exit(7)").returncode == 7
    assert checkout.run("run", "no-such-program").returncode == 2
    assert checkout.run("nonsense").returncode == 2
