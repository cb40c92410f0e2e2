"""Spool files as the cold side sees them: one that can be locked has no writer any more."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.ledger import spools
from app.metering.outbox import Spool
from tests.ledger.books import encode, event


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    spool = Spool(folder)
    try:
        yield folder / spool.name
    finally:
        spool.close()


def test_a_file_is_written_as_long_as_its_writer_has_it(tmp_path: Path) -> None:
    with writing(tmp_path) as path:
        assert spools.is_written(path)
        with spools.closed(path) as file:
            assert file is None
    assert not spools.is_written(path)
    with spools.closed(path) as file:
        assert file is not None


def test_a_file_that_is_gone_has_no_writer_and_cannot_be_had(tmp_path: Path) -> None:
    path = tmp_path / "gone.jsonl"
    assert not spools.is_written(path)
    with spools.closed(path) as file:
        assert file is None


def test_a_file_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "1.jsonl"
    path.touch()
    with spools.closed(path) as file:
        assert file is not None
        with spools.closed(path) as second:
            assert second is None
        assert spools.is_written(path), "it is the janitor's for a moment"
    assert not spools.is_written(path)


def test_a_file_that_another_has_deleted_before_it_could_be_locked_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.jsonl"
    path.touch()
    flock = fcntl.flock

    def late(file: int, how: int) -> None:
        path.unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with spools.closed(path) as file:
        assert file is None


def test_looking_keeps_no_file_open(tmp_path: Path) -> None:
    opened = Path("/proc/self/fd")
    with writing(tmp_path) as path:
        before = len(list(opened.iterdir()))
        for _ in range(5):
            spools.is_written(path)
            with spools.closed(path):
                pass
        assert len(list(opened.iterdir())) == before


def test_files_are_found_oldest_first_and_drafts_are_none(tmp_path: Path) -> None:
    assert spools.files(tmp_path / "none") == []
    for name in ("2-1.jsonl", "1-1.jsonl", ".3-1", "reaper-1-1.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in spools.files(tmp_path)] == ["1-1.jsonl", "2-1.jsonl", "reaper-1-1.jsonl"]


def test_an_event_survives_its_line(tmp_path: Path) -> None:
    told = event(cost_nano=spools.LARGEST)
    assert spools.decode(encode(told)) == told
    with pytest.raises(spools.Poison):
        spools.decode(encode(event(cost_nano=spools.LARGEST + 1)))
