"""The person: what is known of somebody who can sign in, and what each role may do and hold.

Only the table stands here, below everything that belongs to people; what can be done to them is `identity`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta
from sqlalchemy import Index, String, func, true
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.domain import fields, names
from app.extensions import Base
from app.runtime.ids import new_id

Scope = Literal["inference", "portal", "admin"]
# inference: call /v1. portal: one's own keys, subscriptions and usage. admin: the management routes of admins.
SCOPES: tuple[Scope, ...] = get_args(Scope)

Role = Literal["user", "admin", "admin-readonly"]
ROLES: tuple[Role, ...] = get_args(Role)
ROLE_NAMES = {"user": "User", "admin": "Administrator", "admin-readonly": "Administrator, read only"}

SCOPES_OF: dict[str, tuple[Scope, ...]] = {
    "user": ("inference", "portal"),
    "admin": SCOPES,
    "admin-readonly": SCOPES,
}


LARGEST_RATE = 1_000_000_000
Rate = Annotated[int, Meta(ge=1, le=LARGEST_RATE)]
_NO_RATE = f"Give a number from 1 to {LARGEST_RATE}, or nothing for no limit."


class PersonFields(msgspec.Struct, kw_only=True):
    """What is said of a person: each of these fields is declared here and has a column in `Person`."""

    email: Annotated[
        Annotated[str, Meta(max_length=255)] | None,
        Meta(
            title="E-mail",
            description="Notices are sent there. Empty for none.",
            extra={"read": names.checked_email, "attributes": {"inputmode": "email"}},
        ),
    ] = None
    role: Annotated[
        Role,
        Meta(title="Role", description="A read-only administrator sees everything.", extra={"labels": ROLE_NAMES}),
    ] = "user"
    scopes: Annotated[list[Scope], Meta(title="Scopes")] = []
    groups: Annotated[
        list[str],
        Meta(
            title="Groups",
            description="Separated by commas. Approval rules may name them.",
            extra={"read": names.checked_groups, "attributes": {"spellcheck": "false"}},
        ),
    ] = []
    disabled: Annotated[bool, Meta(title="Deactivated")] = False
    rpm: Annotated[
        Rate | None,
        Meta(
            title="Requests a minute",
            description="All personal calls together. Empty for no limit.",
            extra={"refusal": _NO_RATE},
        ),
    ] = None
    tpm: Annotated[
        Rate | None,
        Meta(
            title="Tokens a minute",
            description="All personal calls together. Empty for no limit.",
            extra={"refusal": _NO_RATE},
        ),
    ] = None


class Person(Base):
    """Somebody who can sign in. `rpm` and `tpm` limit all of their personal calls together; None means no limit."""

    __tablename__ = "person"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(String(64))
    email: Mapped[str | None]
    password_hash: Mapped[str | None]
    role: Mapped[str] = mapped_column(String(16), default="user")
    scopes: Mapped[list[str]] = mapped_column(default=list)
    disabled: Mapped[bool] = mapped_column(default=False)
    must_change_password: Mapped[bool] = mapped_column(default=False)
    rpm: Mapped[int | None]
    tpm: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_seen_at: Mapped[datetime | None]
    groups: Mapped[list[str]] = mapped_column(
        default=list, server_default="[]"
    )  # words that admins or a sign-in service give
    email_notices: Mapped[bool] = mapped_column(default=True, server_default=true())

    # What Flask-Login asks of a person.
    is_authenticated = True
    is_anonymous = False

    @property
    def is_active(self) -> bool:
        return not self.disabled

    def get_id(self) -> str:
        return self.id

    @property
    def is_admin(self) -> bool:
        """May change everything."""
        return self.role == "admin"

    @property
    def sees_everything(self) -> bool:
        """May read everything: admins and read-only admins."""
        return self.role in ("admin", "admin-readonly")

    @property
    def held_scopes(self) -> tuple[str, ...]:
        """The scopes granted that the role allows."""
        return tuple(scope for scope in SCOPES_OF.get(self.role, ()) if scope in self.scopes)

    def summary(self) -> dict[str, Any]:
        """What the audit log tells of a person."""
        return {"username": self.username, **fields.told(PersonFields, self)}

    @property
    def status(self) -> str:
        """active or deactivated."""
        return "deactivated" if self.disabled else "active"


Index("uq_person_username", func.lower(Person.username), unique=True)
