"""Saved views: filters of a list that a person named, to open the list so again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Select, String, func, select
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.domain import names
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.person import Person
from app.extensions import Base, db
from app.runtime.ids import new_id

MOST = 20  # of a person
LONGEST_QUERY = 2_000  # characters


class SavedView(Base):
    """`path` is the list's, `query` the part of its address behind the question mark."""

    __tablename__ = "saved_view"
    __table_args__ = (Index("uq_saved_view_name", "person_id", "path", "name", unique=True),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"))
    path: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(names.LONGEST))
    query: Mapped[str] = mapped_column(String(LONGEST_QUERY))
    created_at: Mapped[datetime] = mapped_column(default=now)

    @property
    def href(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def owned_by(person: Person, path: str | None = None) -> Select[SavedView]:
    """A query of a person's views, of one list or of all, by name."""
    query = select(SavedView).where(SavedView.person_id == person.id).order_by(func.lower(SavedView.name))
    return query if path is None else query.where(SavedView.path == path)


def get_own(person: Person, id: str) -> SavedView:
    """The person's own view with this id. Raises `NotFound`."""
    view = db.session.scalar(owned_by(person).where(SavedView.id == id))
    if view is None:
        raise NotFound("This view does not exist.")
    return view


def save(person: Person, *, path: str, name: str, query: str) -> SavedView:
    """Save filters under a name; a view of this list with the same name is replaced. Raises `Invalid` naming `name`, and
    `Conflict` if the person has as many views as they can have."""
    name = names.checked(name)
    if len(query) > LONGEST_QUERY:
        raise Invalid("These filters are too long to be saved.", "name")
    view = db.session.scalar(owned_by(person, path).where(SavedView.name == name))
    if view is not None:
        view.query = query
        return view
    if (db.session.scalar(select(func.count()).select_from(owned_by(person).subquery())) or 0) >= MOST:
        raise Conflict(f"You can save at most {MOST} views. Delete one first.")
    view = SavedView(person_id=person.id, path=path, name=name, query=query)
    db.session.add(view)
    return view
