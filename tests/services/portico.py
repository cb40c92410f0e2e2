"""A whole Portico for tests, started as people start it: through the launcher, in a data folder of its own.

What it prints is kept in a file, which is shown beside the failure of a test that used it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.services.memory import PLACE
from tests.services.upstream import unused_port
from tests.services.waiting import PATIENCE_S
from tools.orphans import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
ADMIN_PASSWORD = "correct horse battery staple"


class Portico:
    """One instance; `start()` waits until it takes traffic, `stop()` is a Ctrl-C, `kill()` a power cut."""

    def __init__(
        self,
        environ: dict[str, str],
        arguments: Sequence[str] = (),
        data_dir: Path | None = None,
        checkout: Path = ROOT,
    ) -> None:
        self._checkout = checkout
        self._own_dir = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="portico-", dir=PLACE))
        self.port = int(environ.get("CONFIG_SERVER_PORT") or unused_port())
        self.admin_username = environ.get("CONFIG_AUTH_ADMIN_USERNAME", "admin")
        self.admin_password = environ.get("CONFIG_AUTH_ADMIN_PASSWORD", ADMIN_PASSWORD)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONFIG_")}
        self.env = inherited | {
            "CONFIG_SERVER_PORT": str(self.port),
            "CONFIG_SERVER_WORKERS": "1",
            "CONFIG_STORAGE_DATA_DIR": str(self.data_dir),
            "CONFIG_AUTH_ADMIN_PASSWORD": self.admin_password,
        } | environ  # fmt: skip
        self.arguments = list(arguments)
        self.log_path = self.data_dir / "portico.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def redis_url(self) -> str:
        return self.env.get("CONFIG_REDIS_URL") or f"unix://{self.data_dir / 'valkey' / 'valkey.sock'}?db=0"

    def launch(self) -> None:
        """Start it without waiting for anything."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self._checkout / "tools" / "run.py"), *self.arguments],
                cwd=self._checkout, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),  # and everything below dies with it
            )  # fmt: skip

    def start(self, within_s: float = PATIENCE_S) -> Portico:
        self.launch()
        try:
            self.wait_ready(within_s)
        except BaseException:
            self.kill()
            raise
        return self

    def wait_ready(self, within_s: float = PATIENCE_S) -> None:
        assert self.process is not None
        deadline = time.monotonic() + within_s
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"Portico ended with {self.process.returncode}:\n{self.log()}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"Portico was not ready in {within_s} s:\n{self.log()}")
            time.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        """The launcher and all below it."""
        if self.process is None:
            return []
        try:
            launcher = psutil.Process(self.process.pid)
            return [launcher, *launcher.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def pids(self, words: str) -> list[int]:
        """Whose command line holds `words`: `portico.pids("app.jobs.drainer")`, `pids("gunicorn")`, `pids("valkey-server")`."""
        found = []
        for process in self.processes():
            try:
                if words in " ".join(process.cmdline()):
                    found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def log(self, last: int = 20_000) -> str:
        return self.log_path.read_text(errors="replace")[-last:] if self.log_path.exists() else ""

    def stop(self, within_s: float = PATIENCE_S) -> int:
        """SIGINT, as Ctrl-C; answers the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"Portico did not stop in {within_s} s:\n{self.log()}") from None
        return int(self.process.returncode)

    def kill(self) -> None:
        """SIGKILL to everything at once."""
        everybody = self.processes()
        for process in everybody:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        psutil.wait_procs(everybody, timeout=10)
        if self.process is not None:
            self.process.wait(10)

    def close(self) -> None:
        """Stop it, hard when it must be, and remove what it kept."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop(40)
        finally:
            self.kill()
            if self._own_dir:
                shutil.rmtree(self.data_dir, ignore_errors=True)
