"""Prompts: templates with variables that people and teams keep, each with all its versions.

A template is text with variables in double braces, such as `{{language}}`. A version never changes: another template or
another model makes the next one, so that what a call was asked with can be read later.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, Index, Select, String, Text, func, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.domain import audit, teams
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.person import Person
from app.domain.teams import Membership
from app.extensions import Base, db
from app.runtime.ids import new_id
from app.runtime.templates import variables_of

LONGEST_NAME = 100
LONGEST_DESCRIPTION = 1_000
LONGEST_TEMPLATE = 100_000
MOST_VERSIONS = 1_000  # of a prompt
MOST_KEPT = 4_000_000  # characters of all versions of all prompts of a person or a team: the gateway has them in memory
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class Prompt(Base):
    """A template of a person, or of the team with `team_id`; `owner` is the username of who created it."""

    __tablename__ = "prompt"
    __table_args__ = (
        Index("uq_prompt_of_person", "person_id", "name", unique=True),
        Index("uq_prompt_of_team", "team_id", "name", unique=True),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    person_id: Mapped[str | None] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"))  # none for a team's
    team_id: Mapped[str | None] = mapped_column(ForeignKey("team.id", ondelete="CASCADE"))
    owner: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    description: Mapped[str | None] = mapped_column(Text)
    template: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(256))  # for callers that name none
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)

    @property
    def input_variables(self) -> list[str]:
        """The names of its variables, in their order."""
        return variables_of(self.template)

    def summary(self) -> dict[str, Any]:
        """What the audit log keeps: not the template, which may hold private words."""
        return {"name": self.name, "team_id": self.team_id, "model": self.model, "version": self.version}


class PromptVersion(Base):
    """A prompt as it was from one moment on."""

    __tablename__ = "prompt_version"

    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompt.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    template: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(256))
    created_at: Mapped[datetime] = mapped_column(default=now)


def visible_to(person: Person) -> Select[Prompt]:
    """A person's own prompts and those of their teams, newest first. Nobody else sees them, admins neither."""
    joined = select(Membership.team_id).where(Membership.person_id == person.id)
    mine = or_(Prompt.person_id == person.id, Prompt.team_id.in_(joined))
    return select(Prompt).where(mine).order_by(Prompt.id.desc())


def search(person: Person, text: str | None = None, team_id: str | None = None) -> Select[Prompt]:
    """Those that a person can see whose name or description contains `text`."""
    query = visible_to(person)
    if text:
        query = query.where(or_(*(one.icontains(text, autoescape=True) for one in (Prompt.name, Prompt.description))))
    return query if team_id is None else query.where(Prompt.team_id == team_id)


def get_visible(person: Person, id: str, *, change: bool = False) -> Prompt:
    """The prompt with this id if the person can see it. Raises `NotFound`, or `Forbidden` with `change` for a member of the
    team who neither created it nor owns the team."""
    prompt = db.session.scalar(visible_to(person).where(Prompt.id == id))
    if prompt is None:
        raise NotFound("This prompt does not exist.")
    if change and not may_change(person, prompt):
        raise Forbidden("Only who created it and the owners of its team can change this prompt.")
    return prompt


def may_change(person: Person, prompt: Prompt) -> bool:
    if prompt.team_id is None or prompt.owner == person.username:
        return True
    return teams.role_in(person, prompt.team_id) == "owner"


def versions_of(prompt: Prompt) -> Select[PromptVersion]:
    """All versions, newest first."""
    mine = PromptVersion.prompt_id == prompt.id
    return select(PromptVersion).where(mine).order_by(PromptVersion.version.desc())


def version_of(prompt: Prompt, version: int | None = None) -> PromptVersion:
    """One version of a prompt, the present one unless another is named. Raises `Invalid`."""
    found = db.session.get(PromptVersion, (prompt.id, version or prompt.version))
    if found is None:
        raise Invalid(f"This prompt has the versions 1 to {prompt.version}.", "version")
    return found


def create(
    *,
    by: Person,
    name: str,
    template: str,
    description: str | None = None,
    model: str | None = None,
    team_id: str | None = None,
) -> Prompt:
    """Create a prompt of a person, or of a team that they are in. Raises `Invalid`, `Conflict` or `NotFound`."""
    if team_id is not None:
        _must_be_in(by, team_id)
    prompt = Prompt(
        id=new_id(), person_id=None if team_id else by.id, team_id=team_id, owner=by.username, version=1,
        **_checked(name, template, description, model),
    )  # fmt: skip
    _must_be_free(prompt)
    _must_fit(prompt)
    db.session.add(prompt)
    db.session.flush()
    db.session.add(PromptVersion(prompt_id=prompt.id, version=1, template=prompt.template, model=prompt.model))
    mark_for_publication("prompt", prompt.id)
    audit.record(by, "prompt.create", "prompt", prompt.id, name=prompt.name, after=prompt.summary())
    return prompt


def update(prompt: Prompt, *, by: Person, **changes: Any) -> Prompt:
    """Change name, description, template or model; the last two make the next version. Raises `Invalid` or `Conflict`."""
    before = prompt.summary()
    now_is = {name: getattr(prompt, name) for name in ("name", "template", "description", "model")}
    wanted = _checked(**now_is | changes)
    is_new = (wanted["template"], wanted["model"]) != (prompt.template, prompt.model)
    if is_new and prompt.version >= MOST_VERSIONS:
        raise Conflict(f"A prompt has at most {MOST_VERSIONS} versions. Create another prompt.")
    for name, value in wanted.items():
        setattr(prompt, name, value)
    _must_be_free(prompt)
    if is_new:
        _must_fit(prompt)
        prompt.version += 1
        db.session.add(
            PromptVersion(prompt_id=prompt.id, version=prompt.version, template=prompt.template, model=prompt.model)
        )
        mark_for_publication("prompt", prompt.id)
    db.session.flush()
    audit.record(by, "prompt.update", "prompt", prompt.id, name=prompt.name, before=before, after=prompt.summary())
    return prompt


def delete(prompt: Prompt, *, by: Person) -> None:
    """Delete a prompt with its versions. What its calls cost stays in the ledger."""
    audit.record(by, "prompt.delete", "prompt", prompt.id, name=prompt.name, before=prompt.summary(), after={})
    mark_for_publication("prompt", prompt.id)
    for version in db.session.scalars(versions_of(prompt)):
        db.session.delete(version)
    db.session.flush()
    db.session.delete(prompt)
    db.session.flush()


def _must_be_in(person: Person, team_id: str) -> None:
    if teams.role_in(person, team_id) is None:
        raise NotFound("You are not in this team.", "team_id")


def _of_owner(prompt: Prompt) -> ColumnElement[bool]:
    return Prompt.person_id == prompt.person_id if prompt.team_id is None else Prompt.team_id == prompt.team_id


def _must_fit(prompt: Prompt) -> None:
    size = func.coalesce(func.sum(func.length(PromptVersion.template)), 0)
    with db.session.no_autoflush:
        kept = db.session.scalar(
            select(size).join(Prompt, Prompt.id == PromptVersion.prompt_id).where(_of_owner(prompt))
        )
    if int(kept or 0) + len(prompt.template) > MOST_KEPT:
        raise Conflict(f"All prompts with their versions have at most {MOST_KEPT:,} characters. Delete one first.")


def _must_be_free(prompt: Prompt) -> None:
    with db.session.no_autoflush:
        taken = select(Prompt.id).where(_of_owner(prompt), Prompt.name == prompt.name, Prompt.id != prompt.id)
        if db.session.scalar(taken) is not None:
            raise Conflict(f"There is already a prompt named {prompt.name}.", "name")


def _checked(name: str, template: str, description: str | None, model: str | None) -> dict[str, Any]:
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME or _CONTROL.search(name):
        raise Invalid(f"Enter a name of at most {LONGEST_NAME} characters.", "name")
    if not template.strip() or len(template) > LONGEST_TEMPLATE or _CONTROL.search(template):
        raise Invalid(f"Enter a template of at most {LONGEST_TEMPLATE:,} characters.", "template")
    description = (description or "").strip() or None
    if description and (len(description) > LONGEST_DESCRIPTION or _CONTROL.search(description)):
        raise Invalid(f"Use at most {LONGEST_DESCRIPTION:,} characters.", "description")
    model = (model or "").strip() or None
    if model and (len(model) > 256 or _CONTROL.search(model)):
        raise Invalid("Enter the name of a model.", "model")
    return {"name": name, "template": template, "description": description, "model": model}
