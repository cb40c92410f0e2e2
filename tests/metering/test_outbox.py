"""The spool: one file a process, locked while it lives, synced soon after each line and not while there is none."""

from __future__ import annotations

import errno
import fcntl
import os
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.metering import outbox
from app.metering.outbox import SYNC_S, Spool


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> queue.Queue[int]:
    """The size of a file of this test at each sync; this process may have other spools."""
    sizes: queue.Queue[int] = queue.Queue()
    fsync = os.fsync

    def note(file: int) -> None:
        fsync(file)
        if os.fstat(file).st_ino in {path.stat().st_ino for path in tmp_path.rglob("*")}:
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


def test_a_line_that_the_disk_does_not_take_whole_is_not_in_the_file(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.append(b"first")
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, data: write(file, data[:3]))
        with pytest.raises(OSError, match="only 3 of 7 bytes"):
            spool.append(b"second")
    spool.append(b"third")
    assert (tmp_path / spool.name).read_bytes() == b"first\nthird\n"


def test_a_spool_without_a_place_is_opened_when_there_is_one(tmp_path: Path) -> None:
    place = tmp_path / "spool"
    place.touch()  # no folder can be made there
    spool = Spool(place)
    assert not spool.is_open
    with pytest.raises(OSError, match="exists"):
        spool.append(b"line")
    place.unlink()
    spool.append(b"line")
    assert (place / spool.name).read_bytes() == b"line\n"
    spool.close()


def test_a_spool_that_cannot_begin_a_new_file_goes_on_with_the_old_one(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.append(b"first")
    name = spool.name

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as without_room:
        without_room.setattr(outbox, "ROTATE_S", -1)
        without_room.setattr(os, "rename", full)
        with pytest.raises(OSError, match="No space"):
            spool.append(b"second")
    spool.append(b"third")
    assert spool.name == name
    assert (tmp_path / name).read_bytes() == b"first\nthird\n"
