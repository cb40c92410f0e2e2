"""The table of people, and what each role can do.

It is below everything that belongs to people; `identity` has the verbs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta
from sqlalchemy import JSON, Index, String, func, true
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.domain import fields, names
from app.extensions import Base
from app.runtime.ids import new_id

Scope = Literal["inference", "portal", "admin"]
# inference: call /v1. portal: own keys, subscriptions and usage. admin: the management routes of admins.
SCOPES: tuple[Scope, ...] = get_args(Scope)

# A token may have parts of what its person holds.
PARTS: dict[str, tuple[str, ...]] = {
    "inference": ("models:read", "chat", "embeddings", "audio", "images"),
    "portal": ("models:read", "usage:read"),
}
TOKEN_SCOPES = tuple(dict.fromkeys((*SCOPES, *(part for parts in PARTS.values() for part in parts))))


def covered(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes with all of their parts."""
    return frozenset(part for scope in scopes for part in (scope, *PARTS.get(scope, ())))


Role = Literal["user", "admin", "admin-readonly"]
ROLES: tuple[Role, ...] = get_args(Role)
ROLE_NAMES = {"user": "User", "admin": "Administrator", "admin-readonly": "Administrator, read only"}

SCOPES_OF: dict[str, tuple[Scope, ...]] = {
    "user": ("inference", "portal"),
    "admin": SCOPES,
    "admin-readonly": SCOPES,
}


THEMES = {"system": "As the system", "light": "Light", "dark": "Dark"}

LARGEST_RATE = 1_000_000_000
Rate = Annotated[int, Meta(ge=1, le=LARGEST_RATE)]
_NO_RATE = f"Enter a number from 1 to {LARGEST_RATE}, or leave this empty for no limit."


class PersonFields(msgspec.Struct, kw_only=True):
    """A person's editable fields. Each has a column in `Person`."""

    email: Annotated[
        Annotated[str, Meta(max_length=255)] | None,
        Meta(
            title="E-mail",
            description="Notifications are sent to this address. Optional.",
            extra={"read": names.checked_email, "attributes": {"inputmode": "email"}},
        ),
    ] = None
    role: Annotated[
        Role,
        Meta(title="Role", description="A read-only administrator can see everything.", extra={"labels": ROLE_NAMES}),
    ] = "user"
    scopes: Annotated[list[Scope], Meta(title="Scopes")] = []
    groups: Annotated[
        list[str],
        Meta(
            title="Groups",
            description="Separated by commas. Approval rules can name them.",
            extra={"read": names.checked_groups, "attributes": {"spellcheck": "false"}},
        ),
    ] = []
    disabled: Annotated[bool, Meta(title="Deactivated")] = False
    rpm: Annotated[
        Rate | None,
        Meta(
            title="Requests per minute",
            description="For all personal calls together. Empty for no limit.",
            extra={"refusal": _NO_RATE},
        ),
    ] = None
    tpm: Annotated[
        Rate | None,
        Meta(
            title="Tokens per minute",
            description="For all personal calls together. Empty for no limit.",
            extra={"refusal": _NO_RATE},
        ),
    ] = None


class Person(Base):
    """A person who can sign in. `rpm` and `tpm` limit all their personal calls together; None means no limit."""

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
    )  # group names that admins or the identity provider set
    email_notices: Mapped[bool] = mapped_column(default=True, server_default=true())

    timezone: Mapped[str] = mapped_column(String(64), default="UTC", server_default="UTC")
    theme: Mapped[str] = mapped_column(String(8), default="system", server_default="system")  # one of `THEMES`

    external_id: Mapped[str | None] = mapped_column(String(255), index=True, unique=True)  # by a SCIM client
    # What a SCIM client told besides (names, e-mail addresses); None for accounts that it did not make.
    scim: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    # Required by Flask-Login.
    is_authenticated = True
    is_anonymous = False

    @property
    def is_active(self) -> bool:
        return not self.disabled

    def get_id(self) -> str:
        return self.id

    @property
    def is_admin(self) -> bool:
        """Whether this person can change everything."""
        return self.role == "admin"

    @property
    def sees_everything(self) -> bool:
        """Whether this person can read everything: admins and read-only admins."""
        return self.role in ("admin", "admin-readonly")

    @property
    def held_scopes(self) -> tuple[str, ...]:
        """The granted scopes that the role allows."""
        return tuple(scope for scope in SCOPES_OF.get(self.role, ()) if scope in self.scopes)

    def summary(self) -> dict[str, Any]:
        """The values that the audit log records."""
        return {"username": self.username, **fields.told(PersonFields, self)}

    @property
    def status(self) -> str:
        """ "active" or "deactivated"."""
        return "deactivated" if self.disabled else "active"


Index("uq_person_username", func.lower(Person.username), unique=True)
