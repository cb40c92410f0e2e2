"""Exports: what stands in a list, as CSV and JSON that other programs read."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from flask import Flask

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
        form = exports.wanted()
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
        assert exports.wanted() is None
        assert msgspec.json.decode(exports.answer("json", "keys", COLUMNS, []).get_data()) == {"data": []}
        assert exports.answer("csv", "keys", COLUMNS, []).get_data(as_text=True).strip() == "name,at,models"


def test_a_long_list_leaves_in_pieces(app: Flask) -> None:
    rows = ({"name": "x" * 1000, "at": None, "models": []} for _ in range(500))
    with app.test_request_context("/keys"):
        pieces = list(exports.answer("csv", "keys", COLUMNS, rows).iter_encoded())
    assert len(pieces) > 5
    assert max(len(piece) for piece in pieces) < 3 * exports.PIECE
