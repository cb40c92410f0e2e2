"""The spool folder for the cold side: which files have no writer any more, and the events in their lines.

A writer holds a lock on its file while it is open (`app.metering.outbox`), so a file whose lock is free has no writer.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from app.metering.quantities import NAMES
from app.metering.usage import UsageEvent

LARGEST = 2**53  # a larger number is not usage; sums of such numbers would not fit the ledger

_decode = msgspec.json.Decoder(UsageEvent).decode
_NUMBERS = (
    *NAMES,
    *(name for name in UsageEvent.__struct_fields__ if name.endswith(("_ms", "_nano")) and name not in NAMES),
)


class Poison(ValueError):
    """Bytes that are not a usage event."""


def decode(raw: bytes) -> UsageEvent:
    """Return the event in one line of JSON. Raises `Poison`."""
    try:
        event = _decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Poison(str(error)) from None
    for name in _NUMBERS:
        number = getattr(event, name)
        if number is not None and not -LARGEST <= number <= LARGEST:
            raise Poison(f"{name} is out of range")
    if not 0 <= event.attempt < 2**31 or not 0 <= event.status < 2**31:
        raise Poison("attempt or status is out of range")
    return event


def files(folder: Path) -> list[Path]:
    """All spool files, oldest first."""
    return sorted(folder.glob("*.jsonl")) if folder.is_dir() else []


def is_written(path: Path) -> bool:
    """Whether the file has a writer; False if it is gone."""
    try:
        file = _lock(path, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    if file is None:
        return True
    os.close(file)
    return False


@contextmanager
def closed(path: Path) -> Iterator[int | None]:
    """Lock a file without a writer and yield its descriptor; yield None if it has a writer or is gone."""
    try:
        file = _lock(path, fcntl.LOCK_EX)
    except FileNotFoundError:
        file = None
    if file is None:
        yield None
        return
    try:
        # Another drainer may have deleted the file between the two calls.
        yield file if os.fstat(file).st_nlink else None
    finally:
        os.close(file)


def _lock(path: Path, kind: int) -> int | None:
    """Lock a file and return its descriptor, or None if it has a writer. Raises `FileNotFoundError`."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError:
        os.close(file)
        raise
    return file
