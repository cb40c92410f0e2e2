"""Lists as files: the rows that a page's filters leave, as CSV or JSON, streamed so that memory stays bounded.

The address of a list with `format=csv` or `format=json` is its export; `ui.exports()` links to both.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import msgspec
from flask import Response, request, stream_with_context

from app import clock

Format = Literal["csv", "json"]
Row = TypeVar("Row")

MIME: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
PIECE = 64 * 1024  # characters sent at once
# What a spreadsheet may take for the beginning of a formula (OWASP, CSV injection), behind whatever does not show.
FORMULA = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]*[=+\-@＝＋－＠−﹣﹢﹦﹫]|[\t\r\n]"
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)

_encode = msgspec.json.Encoder(enc_hook=str).encode


def wanted() -> Format | None:
    """The file that this request asks for instead of the page."""
    match request.args.get("format"):
        case "csv":
            return "csv"
        case "json":
            return "json"
    return None


def answer(form: Format, name: str, columns: Mapping[str, Callable[[Row], Any]], rows: Iterable[Row]) -> Response:
    """`rows` as a download. `columns` maps each column's name to what it holds of a row: text, numbers, None,
    instants, or lists of these; money as decimal text. `rows` is read while the answer is sent."""
    lines = _csv(columns, rows) if form == "csv" else _json(columns, rows)
    response = Response(stream_with_context(_pieces(lines)), mimetype=None, content_type=MIME[form])
    stamp = clock.now().strftime("%Y%m%d-%H%M%S")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}-{stamp}.{form}"'
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
    if isinstance(value, list | tuple):
        value = " ".join(str(one) for one in value)
    # What a spreadsheet would take for a formula is shown as the text that it is. Decimal text is a number, also below 0.
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _json(columns: Mapping[str, Callable[[Row], Any]], rows: Iterable[Row]) -> Iterator[str]:
    yield '{"data": ['
    for position, row in enumerate(rows):
        yield (",\n" if position else "\n") + _encode({name: show(row) for name, show in columns.items()}).decode()
    yield "\n]}\n"


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
