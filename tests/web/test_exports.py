"""Exports: what stands in a list, as CSV and JSON that other programs read."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import Unavailable
from app.extensions import db
from app.web import exports

COLUMNS = {"name": lambda row: row["name"], "at": lambda row: row["at"], "models": lambda row: row["models"]}
ROWS: list[dict[str, Any]] = [
    {"name": 'said "yes", twice', "at": datetime(2026, 3, 1, tzinfo=UTC), "models": ["a", "b"]},
    {"name": "=1+1", "at": None, "models": []},
]


@pytest.fixture
def app() -> Flask:
    return Flask(__name__)


def test_csv_quotes_what_must_be_quoted_and_disarms_formulas(app: Flask) -> None:
    with app.test_request_context("/keys?format=csv"):
        form = exports.requested_format()
        assert form == "csv"
        answer = exports.answer(form, "keys", COLUMNS, ROWS)
        read = list(csv.reader(io.StringIO(answer.get_data(as_text=True))))
    assert read == [
        ["name", "at", "models"],
        ['said "yes", twice', "2026-03-01T00:00:00+00:00", "a b"],
        ["'=1+1", "", ""],
    ]
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="keys-')


def test_json_is_one_document_with_every_row(app: Flask) -> None:
    with app.test_request_context("/keys?format=json"):
        answer = exports.answer("json", "keys", COLUMNS, ROWS)
        read = msgspec.json.decode(answer.get_data())
    assert [row["name"] for row in read["data"]] == ['said "yes", twice', "=1+1"]
    assert read["data"][0]["models"] == ["a", "b"]


def test_an_empty_list_is_an_empty_file(app: Flask) -> None:
    with app.test_request_context("/keys"):
        assert exports.requested_format() is None
        assert msgspec.json.decode(exports.answer("json", "keys", COLUMNS, []).get_data()) == {"data": []}
        assert exports.answer("csv", "keys", COLUMNS, []).get_data(as_text=True).strip() == "name,at,models"


def test_an_export_is_read_to_its_end_before_the_first_byte_is_sent(app: Flask) -> None:
    """So that nothing of the database is held while a client reads."""
    read: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(3000):
            read.append(number)
            yield {"name": "x" * 1000, "at": None, "models": []}

    with app.test_request_context("/keys"):
        answer = exports.answer("csv", "keys", COLUMNS, rows())
    assert len(read) == 3000
    sent = b"".join(answer.iter_encoded())
    assert len(sent) == answer.content_length > exports.MOST_IN_MEMORY
    assert sent.count(b"\n") == 3001
    answer.close()


def test_an_export_that_fails_half_way_is_no_file(app: Flask) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise ValueError("the database went away")

    with app.test_request_context("/keys"):
        for _ in range(exports.MOST_AT_ONCE + 1):  # and it gives its turn back
            with pytest.raises(ValueError, match="went away"):
                exports.answer("csv", "keys", COLUMNS, rows())


def test_few_exports_are_written_at_a_time(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[bool] = []
    monkeypatch.setattr(exports, "PATIENCE_S", 0.01)
    monkeypatch.setattr(db, "session", SimpleNamespace(rollback=lambda: released.append(True)))
    monkeypatch.setattr(exports, "_writers", cache(lambda: threading.BoundedSemaphore(1)))

    def rows() -> Iterator[dict[str, Any]]:
        with pytest.raises(Unavailable, match="Too many exports"):
            exports.answer("json", "keys", COLUMNS, ROWS)
        yield ROWS[0]

    with app.test_request_context("/keys"):
        exports.answer("csv", "keys", COLUMNS, rows())
        exports.answer("csv", "keys", COLUMNS, ROWS)
    assert released == [True]  # who waits holds no connection


def test_a_long_list_leaves_in_pieces(app: Flask) -> None:
    rows = ({"name": "x" * 1000, "at": None, "models": []} for _ in range(500))
    with app.test_request_context("/keys"):
        pieces = list(exports.answer("csv", "keys", COLUMNS, rows).iter_encoded())
    assert len(pieces) > 5
    assert max(len(piece) for piece in pieces) < 3 * exports.PIECE


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", " =", "\n=", "\u200b=", "\ufeff@",
                                  "\u00a0-", "\x00=", "\u3000＝"])  # fmt: skip
@pytest.mark.parametrize("value", ["{}cmd|' /C calc'!A0", ["{}1+1"], ["{}1+1", "b"], ("{}x",)])
def test_no_cell_begins_as_a_formula(app: Flask, sign: str, value: Any) -> None:
    text = value.format(sign) if isinstance(value, str) else type(value)(one.format(sign) for one in value)
    with app.test_request_context("/keys"):
        answer = exports.answer("csv", "keys", {"cell": lambda row: row}, [text])
        [_, [cell]] = csv.reader(io.StringIO(answer.get_data(as_text=True), newline=""))
    assert cell == "'" + (text if isinstance(text, str) else " ".join(text))


@given(st.lists(st.text("=+-@＝\t\r\n a1.,;\"'", max_size=6), min_size=1, max_size=3))
def test_whatever_stands_in_a_cell_it_is_text_or_a_number(words: list[str]) -> None:
    for value in (words[0], words):
        cell = exports._cell(value)
        shown = cell.lstrip()
        assert not shown.startswith(exports_signs) or cell.startswith("'") or exports.NUMBER.fullmatch(cell)


exports_signs = ("=", "+", "-", "@", "＝")


@pytest.mark.parametrize("value", [-1, -1.5, "-1.5", "-0", "0.000000001", "12", 7, True, None])
def test_numbers_stay_numbers(value: Any) -> None:
    assert exports._cell(value) == value


@pytest.mark.parametrize("value", ["-1+1", "-1.5e3", "-", "-1.", "-1,5", "--1", "-1 ", "-१", "+1"])
def test_what_only_begins_as_a_number_is_text(value: str) -> None:
    assert exports._cell(value) == f"'{value}"
