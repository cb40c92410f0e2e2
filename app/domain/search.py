"""Search conditions for long tables: PostgreSQL answers them from an index; every database finds the same rows."""

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
    """The condition that one of these columns of a table contains a text, ignoring case.

    PostgreSQL has a trigram index of these columns (`portico_grams`, revision 0007), so it checks few rows however long
    the table is.
    """
    found = or_(*(column.icontains(search, autoescape=True) for column in columns))
    if not _on_postgresql():
        return found
    pieces = func.portico_grams(_together(columns), 1, type_=ARRAY(Text))
    wanted = func.portico_grams(literal(search), min(len(search), LONGEST_GRAM), type_=ARRAY(Text))
    return and_(pieces.contains(wanted), found)


def among(column: Any, query: Select[Any] | CompoundSelect[Any]) -> ColumnElement[bool]:
    """The condition that a column is one of the values of `query`, which run first and once. PostgreSQL then looks up each
    value in the column's index; for a plain IN it might scan the whole table.

    Use it in an AND. In an OR, or next to a better index, each row costs as much as there are values.
    """
    found: ColumnElement[bool] = column.in_(query)
    return column == any_(func.array(query.scalar_subquery())) if _on_postgresql() else found


def one_of(column: Any, texts: Collection[str]) -> ColumnElement[bool]:
    """The condition that a column is one of these texts. It is a single parameter for any number of texts."""
    if _on_postgresql():
        return column == any_(literal(list(texts), ARRAY(Text)))  # type: ignore[no-any-return]
    each = func.json_each(msgspec.json.encode(list(texts)).decode())
    found: ColumnElement[bool] = column.in_(select(_VALUE).select_from(each))
    return found


_VALUE: ColumnElement[str] = literal_column("value")  # the name that `json_each` uses


def _together(columns: tuple[Any, ...]) -> ColumnElement[str]:
    """The columns as one expression, exactly as the index has it."""
    text: ColumnElement[str] = cast(columns[0], Text)
    for column in columns[1:]:
        text = (
            text
            + literal("\n", literal_execute=True)
            + func.coalesce(cast(column, Text), literal("", literal_execute=True))
        )
    return text


def _on_postgresql() -> bool:
    return db.engine.dialect.name == "postgresql"
