"""The spool: one file a process, locked while it lives, synced soon after each line and not while there is none."""

from __future__ import annotations

import fcntl
import os
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.metering.outbox import SYNC_S, Spool


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[int]:
    """The size of the file at each sync."""
    sizes: queue.Queue[int] = queue.Queue()
    fsync = os.fsync

    def note(file: int) -> None:
        fsync(file)
        sizes.put(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", note)
    return sizes


@pytest.fixture
def spool(tmp_path: Path, synced: queue.Queue[int]) -> Iterator[Spool]:
    spool = Spool(tmp_path)
    yield spool
    spool.close()


def test_a_line_is_in_the_file_at_once_and_on_the_disk_soon(
    spool: Spool, tmp_path: Path, synced: queue.Queue[int]
) -> None:
    for number in range(1, 4):
        spool.append(b"line")
        assert (tmp_path / spool.name).read_bytes() == b"line\n" * number
        assert synced.get(timeout=10) == 5 * number


def test_nothing_is_synced_while_nothing_is_written(spool: Spool, synced: queue.Queue[int]) -> None:
    spool.append(b"line")
    assert synced.get(timeout=10) == 5
    with pytest.raises(queue.Empty):
        synced.get(timeout=3 * SYNC_S)


def test_closing_syncs_and_lets_the_lock_go(tmp_path: Path, synced: queue.Queue[int]) -> None:
    spool = Spool(tmp_path)
    with (tmp_path / spool.name).open("rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        spool.append(b"line")
        spool.close()
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert synced.get(timeout=10) == 5
