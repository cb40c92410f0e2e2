"""A page of a list costs little however long the list is: it is counted and told up to a bound, and ids come before rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask, Response
from jinja2 import DictLoader
from sqlalchemy import Select, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.extensions import db
from app.web import exports, lists
from app.web.htmx import htmx


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
    found, known = lists.rows_and_total(query, page, size)
    assert ([one.number for one in found], known) == (numbers, total)


@pytest.mark.parametrize("asked", ["1", "2", "999"])
def test_a_page_beyond_the_end_is_the_last_one_known(app: Flask, asked: str) -> None:
    with app.test_request_context(f"/?page={asked}"):
        found = lists.page_of(ALL)
    assert (found.page, len(found.items)) == (1, 12)


def test_filters_are_what_the_address_gives_of_what_there_is() -> None:
    app = Flask("filters")
    with app.test_request_context("/?q=%20a%20name%20&status=active&kind=none&model=any/thing"):
        found = lists.filters_from_request(status=("active", "ended"), kind=("team",), state=("open",), model=None)
    assert (found.search, found.is_narrow) == ("a name", True)
    assert found.values == {"status": "active", "kind": "", "state": "", "model": "any/thing"}


@pytest.mark.parametrize(("given", "value"), [("", "open"), ("?state=bent", "open"), ("?state=all", "all")])
def test_a_filter_that_the_address_does_not_give_has_its_default(given: str, value: str) -> None:
    with Flask("filters").test_request_context(f"/{given}"):
        found = lists.filters_from_request(state=("open", "all"), defaults={"state": "open"})
    assert found["state"] == value


def test_texts_of_an_address_are_read_up_to_a_length() -> None:
    with Flask("filters").test_request_context(f"/?q={'a' * 500}&model={'b' * 500}"):
        found = lists.filters_from_request(longest=30, model=None)
    assert (found.search, found["model"]) == ("a" * 30, "b" * lists.LONGEST_VALUE)


@pytest.fixture
def pages(app: Flask) -> Flask:
    app.jinja_loader = DictLoader(
        {
            "things/index.html": "page {% include 'things/_list.html' %}",
            "things/_list.html": "{{ listing.items|map(attribute='number')|join(' ') }} {{ sort }} {{ word }} {{ shown }}",
        }
    )
    htmx.init_app(app)
    return app


def thing_page() -> Response:
    return lists.list_page(
        "things",
        ALL.where(Thing.number < 4),
        {"number": Thing.number},
        file=lambda form, rows: exports.answer(form, "things", {"number": lambda one: one.number}, rows),
        page=lambda found: {"shown": len(found.items)},
        word="word",
    )


@pytest.mark.parametrize(
    ("address", "headers", "text"),
    [
        ("/", {}, "page 3 2 1 0 None word 4"),
        ("/?sort=number", {}, "page 0 1 2 3 number word 4"),
        ("/?sort=kind", {}, "page 3 2 1 0 None word 4"),
        ("/", {"HX-Request": "true", "HX-Request-Type": "partial"}, "3 2 1 0 None word 4"),
        ("/?sort=number&format=csv", {}, "number\r\n0\r\n1\r\n2\r\n3\r\n"),
    ],
)
def test_a_list_is_a_page_a_part_of_it_or_a_file(
    pages: Flask, address: str, headers: dict[str, str], text: str
) -> None:
    with pages.test_request_context(address, headers=headers):
        answer = thing_page()
        answer.direct_passthrough = False
        assert answer.get_data(as_text=True) == text
