"""A person's history of calls without a key: figures of each, and its words where the person wanted them kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ForeignKey, Index, Select, String, Text, delete, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.domain.errors import NotFound
from app.domain.person import Person
from app.extensions import Base, db

LONGEST_KEPT = 1_000_000  # characters of a text


class Inference(Base):
    """One call. `input` is JSON: the prompt, or the messages. Both texts are None unless they were to be kept."""

    __tablename__ = "inference"
    __table_args__ = (Index(None, "person_id", "id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # the request's
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(default=now)
    model: Mapped[str] = mapped_column(String(256))
    prompt_id: Mapped[str | None] = mapped_column(String(36))
    prompt_version: Mapped[int | None]
    input: Mapped[str | None] = mapped_column(Text)
    output: Mapped[str | None] = mapped_column(Text)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    cost_nano: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[int]  # the HTTP status of the call

    @property
    def asked(self) -> Any:
        """The input as it was asked: a text, or messages; None if it was not kept."""
        return None if self.input is None else msgspec.json.decode(self.input)

    @property
    def messages(self) -> list[tuple[str, str]]:
        """What was asked in words, by who said it; nothing if it was not kept."""
        asked = self.asked
        told = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked or []
        return [(str(one.get("role")), _words_in(one.get("content"))) for one in told]


def owned_by(person: Person, search: str | None = None) -> Select[Inference]:
    """A person's own history, newest first; with `search` the calls whose kept words contain it."""
    query = select(Inference).where(Inference.person_id == person.id).order_by(Inference.id.desc())
    if search:
        query = query.where(
            or_(*(one.icontains(search, autoescape=True) for one in (Inference.input, Inference.output)))
        )
    return query


def get_own(person: Person, id: str) -> Inference:
    """A call of a person's own history. Raises `NotFound`, for admins too."""
    found = db.session.scalar(owned_by(person).where(Inference.id == id))
    if found is None:
        raise NotFound("This call is not in your history.")
    return found


def keep(
    person_id: str,
    *,
    id: str,
    model: str,
    prompt: tuple[str, int] | None = None,
    asked: Any = None,
    output: str | None = None,
    prompt_tokens: int,
    completion_tokens: int,
    cost_nano: int,
    status: int,
) -> Inference:
    """Add a call to a person's history. `asked` and `output` are None unless its words are to be kept."""
    prompt_id, version = prompt or (None, None)
    row = Inference(
        id=id,
        person_id=person_id,
        at=now(),
        model=model,
        prompt_id=prompt_id,
        prompt_version=version,
        input=None if asked is None else _asked(asked),
        output=None if output is None else _storable(output),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost_nano=cost_nano,
        status=status,
    )
    db.session.add(row)
    return row


def clear(person: Person) -> None:
    """Forget a person's history. The ledger keeps what the calls cost."""
    db.session.execute(delete(Inference).where(Inference.person_id == person.id))


def _asked(asked: Any) -> str | None:
    """What was asked as JSON, which is not cut: None if it is too long."""
    text = msgspec.json.encode(asked).decode()
    return text if len(text) <= LONGEST_KEPT else None


def _storable(text: str) -> str:
    """PostgreSQL takes no NUL in a text."""
    return text[:LONGEST_KEPT].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _words_in(content: Any) -> str:
    """The text of a message's content; of other parts only what they are."""
    if not isinstance(content, list):
        return "" if content is None else f"{content}"
    parts = [part for part in content if isinstance(part, dict)]
    return "\n".join(f"{part['text']}" if "text" in part else f"[{part.get('type')}]" for part in parts)
