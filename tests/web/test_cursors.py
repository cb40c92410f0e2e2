"""Cursors lead through a whole list, however it is ordered and whatever comes and goes meanwhile."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Select, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.extensions import db
from app.web import cursors, lists


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)


NAMES = ["Ä", "b", "C", "d", "E", "f g", "é", "'", "z"]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """Eighteen rows, of which five at most are counted."""
    app = Flask("cursors")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db.init_app(app)
    monkeypatch.setattr(lists, "MOST_COUNTED", 5)
    with app.app_context():
        Base.metadata.create_all(db.engine)
        db.session.add_all(Thing(kind=kind, name=name) for kind in "ab" for name in NAMES)
        db.session.commit()
        yield app
        db.session.remove()


BY_BOTH = select(Thing).order_by(Thing.kind.desc(), Thing.name.desc())
BY_NAME = select(Thing).where(Thing.kind == "a").order_by(func.lower(Thing.name))


@pytest.mark.parametrize("query", [BY_BOTH, BY_NAME])
@pytest.mark.parametrize("size", [1, 4, 7])
def test_the_way_back_shows_the_same_pages(app: Flask, query: Select[Thing], size: int) -> None:
    there = [cursors.page_of(query, 1, size)]
    assert there[0].previous is None
    while (cursor := there[-1].next) is not None:
        there.append(cursors.page_of(query, 1, size, cursor))
    back = [there[-1]]
    while (cursor := back[-1].previous) is not None:
        back.append(cursors.page_of(query, 1, size, cursor))
    assert [page.items for page in back] == [page.items for page in reversed(there)]
    assert all(page.next is not None for page in back[1:])


def walked(query: Select[Thing], size: int) -> list[Thing]:
    found, cursor = [], None
    while True:
        piece = cursors.page_of(query, 1, size, cursor)
        assert piece.total == 6  # more than five, wherever the cursor is
        found += piece.items
        cursor = piece.next
        if cursor is None:
            return found


@pytest.mark.parametrize("size", [1, 3, 4, 9, 18, 50])
@pytest.mark.parametrize("query", [BY_BOTH, BY_NAME])
def test_all_rows_come_once_and_in_order_beyond_what_pages_reach(app: Flask, query: Select[Any], size: int) -> None:
    assert walked(query, size) == list(db.session.scalars(query))


def test_the_row_that_a_cursor_was_made_of_may_go(app: Flask) -> None:
    piece = cursors.page_of(BY_BOTH, 1, 4)
    after = list(db.session.scalars(BY_BOTH))[4:8]
    db.session.delete(piece.items[-1])
    db.session.commit()
    assert cursors.page_of(BY_BOTH, 1, 4, piece.next).items == after


def spelled(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    ["x", "é", "zzz", "\ud800", *map(spelled, ("", "1", "{}", "[1, 2]", '["a"]', '["a", "b", "c"]', '["a", "\\u0000"]',
     '["a", "\\ud800"]'))],
)  # fmt: skip
def test_what_is_no_cursor_of_the_list_is_refused(app: Flask, cursor: str) -> None:
    with pytest.raises(cursors.InvalidCursor):
        cursors.page_of(BY_BOTH, 1, 4, cursor)
