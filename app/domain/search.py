"""How rows of long tables are found: conditions that PostgreSQL answers from an index, with the same rows everywhere."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    Text,
    and_,
    any_,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.extensions import db

LONGEST_GRAM = 3


def contains(search: str, *columns: Any) -> ColumnElement[bool]:
    """Whether one of these columns of a table contains a text, in capital letters or small ones.

    PostgreSQL has an index of the pieces of up to three letters of these columns (`portico_grams`, revision 0007), which
    leaves few rows to look at however long the table is.
    """
    found = or_(*(column.icontains(search, autoescape=True) for column in columns))
    if not _on_postgresql():
        return found
    pieces = func.portico_grams(_together(columns), 1, type_=ARRAY(Text))
    wanted = func.portico_grams(literal(search), min(len(search), LONGEST_GRAM), type_=ARRAY(Text))
    return and_(pieces.contains(wanted), found)


def among(column: Any, query: Select[Any] | CompoundSelect[Any]) -> ColumnElement[bool]:
    """Whether a column is one of the values of `query`, which are found first and once. PostgreSQL then steps into the
    column's index with each of them, where it might walk the whole table for an IN.

    It is to stand in an AND: as a part of an OR, or beside a better index, it costs as much a row as it has values.
    """
    found: ColumnElement[bool] = column.in_(query)
    return column == any_(func.array(query.scalar_subquery())) if _on_postgresql() else found


def one_of(column: Any, texts: Collection[str]) -> ColumnElement[bool]:
    """Whether a column is one of these texts: one parameter, however many they are."""
    if _on_postgresql():
        return column == any_(literal(list(texts), ARRAY(Text)))  # type: ignore[no-any-return]
    each = func.json_each(msgspec.json.encode(list(texts)).decode())
    found: ColumnElement[bool] = column.in_(select(_VALUE).select_from(each))
    return found


_VALUE: ColumnElement[str] = literal_column("value")  # as `json_each` calls it


def _together(columns: tuple[Any, ...]) -> ColumnElement[str]:
    """In the very words of the index."""
    told: ColumnElement[str] = cast(columns[0], Text)
    for column in columns[1:]:
        told = (
            told
            + literal("\n", literal_execute=True)
            + func.coalesce(cast(column, Text), literal("", literal_execute=True))
        )
    return told


def _on_postgresql() -> bool:
    return db.engine.dialect.name == "postgresql"
