"""Exports: what stands in a list, as CSV and JSON that other programs read."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

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
