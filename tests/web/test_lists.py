"""A page of a list costs little however long the list is: it is counted and told up to a bound, and ids come before rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import Select, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.extensions import db
from app.web import lists


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"
    kind: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """Twelve rows under names of two parts, of which seven at most are counted."""
    app = Flask("lists")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db.init_app(app)
    monkeypatch.setattr(lists, "MOST_COUNTED", 7)
    with app.app_context():
        Base.metadata.create_all(db.engine)
        db.session.add_all(Thing(kind="a" if number % 2 else "b", number=number) for number in range(12))
        db.session.commit()
        yield app
        db.session.remove()


ALL = select(Thing).order_by(Thing.number.desc())


@pytest.mark.parametrize(
    ("query", "page", "size", "numbers", "total"),
    [
        (ALL, 1, 5, [11, 10, 9, 8, 7], 8),  # more than seven
        (ALL, 2, 5, [6, 5, 4, 3, 2], 8),
        (ALL, 3, 5, [], 8),  # pages end where counting ends
        (ALL, 9, 5, [], 8),
        (ALL.where(Thing.kind == "a"), 1, 4, [11, 9, 7, 5], 6),
        (ALL.where(Thing.kind == "a"), 2, 4, [3, 1], 6),
        (ALL.where(Thing.kind == "c"), 1, 4, [], 0),
    ],
)
def test_a_piece_of_a_list_and_what_is_known_of_its_length(
    app: Flask, query: Select[Thing], page: int, size: int, numbers: list[int], total: int
) -> None:
    found, known = lists.piece_of(query, page, size)
    assert ([one.number for one in found], known) == (numbers, total)


@pytest.mark.parametrize("asked", ["1", "2", "999"])
def test_a_page_beyond_the_end_is_the_last_one_known(app: Flask, asked: str) -> None:
    with app.test_request_context(f"/?page={asked}"):
        found = lists.page_of(ALL)
    assert (found.page, len(found.items)) == (1, 12)
