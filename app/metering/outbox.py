"""The spool: each worker writes every usage event to a file of its own before it settles.

A killed process loses nothing it had written; a native thread syncs every 200 ms, so that a power loss costs that
much. The writer holds a lock on its file; a file whose lock can be had belongs to nobody any more and is replayed
by the drainer's janitor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from gevent.monkey import get_original

from app import clock

# The reaper's own spool: its writer holds no money, so nobody waits for it when the counters are counted anew.
REAPER = "reaper-"

SYNC_S = 0.2
ROTATE_BYTES = 64 << 20
ROTATE_S = 600.0


class Spool:
    """One process's spool; `append` is one write and never waits for the disk.

    Where no file can be made there is none yet: `is_open` tells, and `open` tries again.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._folder = folder
        self._prefix = prefix
        self._file = -1
        self._name = ""
        self._size = 0
        self._opened = 0.0
        with suppress(OSError):
            self.open()
        # Native, so that a slow disk holds up no greenlet.
        start, lock = get_original("_thread", ["start_new_thread", "allocate_lock"])
        self._synced = lock()  # held while there is nothing to sync
        self._synced.acquire()
        self._stop = False
        start(self._sync_for_ever, ())

    @property
    def is_open(self) -> bool:
        return self._file >= 0

    def open(self) -> None:
        """Makes a file where there is none yet. Raises `OSError`."""
        if not self.is_open:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open()

    @property
    def name(self) -> str:
        """The name of the file that is written now."""
        return self._name

    def append(self, line: bytes) -> None:
        """Write one event, a line of JSON without its end. Raises `OSError` when the disk does not take all of it; then
        none of it is in the file."""
        self.open()
        data = line + b"\n"
        if self._size + len(data) > ROTATE_BYTES or time.monotonic() - self._opened > ROTATE_S:
            self._rotate()
        written = os.write(self._file, data)
        if written != len(data):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes of a usage event could be written")
        self._size += written
        self._wake()

    def close(self) -> None:
        self._stop = True
        self._wake()
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)  # lets the lock go: the janitor may have it
            self._file = -1

    def _open(self) -> None:
        name = f"{self._prefix}{clock.now_ns()}-{os.getpid()}"
        # Locked before it bears its name, so that no janitor finds it unlocked.
        draft = self._folder / f".{name}"
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(draft, self._folder / f"{name}.jsonl")
        except OSError:
            os.close(file)
            raise
        self._file, self._name = file, f"{name}.jsonl"
        self._size = 0
        self._opened = time.monotonic()

    def _rotate(self) -> None:
        old = self._file
        if self._size == 0:
            self._opened = time.monotonic()
            return
        self._open()
        try:
            os.fsync(old)
        finally:
            os.close(old)

    def _wake(self) -> None:
        if self._synced.locked():
            self._synced.release()

    def _sync_for_ever(self) -> None:
        sleep = get_original("time", "sleep")
        while True:
            self._synced.acquire()
            sleep(SYNC_S)
            if self._stop:
                return
            self._synced.acquire(blocking=False)  # first: what is written from here on wakes us again
            try:
                os.fsync(self._file)
            except OSError:  # rotated or closed meanwhile, which synced it
                continue
