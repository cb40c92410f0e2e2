"""Lists as files: the rows that a page's filters leave, as CSV or JSON.

The URL of a list with `format=csv` or `format=json` is its export; `ui.exports()` links to both. An export is written
completely before its first byte is sent; a large one goes to a temporary file. So memory stays bounded, no database
connection is held while a client reads, and a failure half way is an error instead of a truncated file.
"""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from tempfile import TemporaryFile
from typing import IO, Any, Literal, TypeVar

import gevent
import msgspec
from flask import Response, request
from werkzeug.wsgi import FileWrapper

from app import clock
from app.domain.errors import Unavailable
from app.extensions import db

Format = Literal["csv", "json"]
Row = TypeVar("Row")

MIME: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
PIECE = 64 * 1024  # characters written in one go
MOST_IN_MEMORY = 1024 * 1024  # bytes of an export; a larger one is written to a file
MOST_AT_ONCE = 3
PATIENCE_S = 60.0
# What a spreadsheet may take for the start of a formula (OWASP, CSV injection), after any invisible characters.
FORMULA = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]*[=+\-@＝＋－＠−﹣﹢﹦﹫]|[\t\r\n]"
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)

_encode = msgspec.json.Encoder(enc_hook=str).encode


def requested_format() -> Format | None:
    """Returns the file format that this request asks for, or None if it asks for the page."""
    match request.args.get("format"):
        case "csv":
            return "csv"
        case "json":
            return "json"
    return None


def answer(format: Format, name: str, columns: Mapping[str, Callable[[Row], Any]], rows: Iterable[Row]) -> Response:
    """Returns `rows` as a download. `columns` maps each column's name to a function of a row that returns text, a
    number, None, a datetime, a list of these, or an object, which is JSON text in a CSV. Money is decimal text."""
    with _turn():
        lines = _csv(columns, rows) if format == "csv" else _json(columns, rows)
        file, size = _written(lines)
    response = Response(FileWrapper(file, PIECE), content_type=MIME[format])
    response.call_on_close(file.close)
    response.content_length = size
    stamp = clock.now().strftime("%Y%m%d-%H%M%S")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}-{stamp}.{format}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _csv(columns: Mapping[str, Callable[[Row], Any]], rows: Iterable[Row]) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.writer(line)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(show(row)) for show in columns.values()])
        if line.tell() > PIECE:
            yield line.getvalue()
            line.seek(0)
            line.truncate()
    yield line.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        value = _encode(value).decode()
    if isinstance(value, list | tuple):
        value = " ".join(str(one) for one in value)
    # An apostrophe makes a spreadsheet show a formula as text. Decimal text is a number, even a negative one.
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _json(columns: Mapping[str, Callable[[Row], Any]], rows: Iterable[Row]) -> Iterator[str]:
    yield '{"data": ['
    for position, row in enumerate(rows):
        yield (",\n" if position else "\n") + _encode({name: show(row) for name, show in columns.items()}).decode()
    yield "\n]}\n"


def _written(lines: Iterable[str]) -> tuple[IO[bytes], int]:
    """Writes `lines` to memory, or to a nameless file if they are many. Returns the file and its size."""
    file: IO[bytes] = io.BytesIO()
    try:
        for piece in _pieces(lines):
            file.write(piece)
            if isinstance(file, io.BytesIO) and file.tell() > MOST_IN_MEMORY:
                written = file.getvalue()
                file = TemporaryFile()  # noqa: SIM115 - closed when it is sent
                file.write(written)
            gevent.sleep(0)  # lets other requests run
        size = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file, size


@contextmanager
def _turn() -> Iterator[None]:
    """Limits how many exports are written at a time, because each holds a database connection. Raises `Unavailable` if
    no turn comes in time."""
    writers = _writers()
    if not writers.acquire(blocking=False):
        db.session.rollback()  # a waiting request must hold no connection
        if not writers.acquire(timeout=PATIENCE_S):
            raise Unavailable("Too many exports are being written. Try again in a minute.")
    try:
        yield
    finally:
        writers.release()


@cache
def _writers() -> threading.BoundedSemaphore:
    """Created on first use, after gevent has patched `threading`."""
    return threading.BoundedSemaphore(MOST_AT_ONCE)


def _pieces(lines: Iterable[str]) -> Iterator[bytes]:
    waiting: list[str] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= PIECE:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting).encode()
