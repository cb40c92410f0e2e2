"""The encryption keys by their ids, and the rotation from one to the next."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from app.blueprints.api.contract import Page, Paged, listed, me, route
from app.domain import encryption_keys
from app.domain.encryption_keys import Rotation
from app.domain.errors import NotFound
from app.workflows import key_rotation


class RotationState(msgspec.Struct, kw_only=True):
    """`done` of `total` secrets are sealed with the key `to_key`."""

    id: str
    state: Literal["running", "done", "failed"]
    total: int
    done: int
    from_key: str
    to_key: str | None
    started_at: datetime
    finished_at: datetime | None
    error: str | None


class ActiveEncryptionKey(msgspec.Struct, kw_only=True):
    """The key that seals secrets. `source` is `file` if Portico keeps it, `settings` if the operator does."""

    id: str
    created_at: datetime
    source: Literal["file", "settings"]


class EncryptionKey(msgspec.Struct, kw_only=True):
    """`secrets` is the number of secrets that are sealed with it."""

    id: str
    state: Literal["active", "retiring", "retired"]
    created_at: datetime
    retired_at: datetime | None
    secrets: int


class EncryptionKeyPage(Page, kw_only=True):
    data: list[EncryptionKey]


def show(rotation: Rotation) -> RotationState:
    values = {name: getattr(rotation, name) for name in RotationState.__struct_fields__}
    return RotationState(**values | {"to_key": rotation.to_key or None})


@route("POST", "/api/admin/rotate-encryption-key", scope="admin", answer=RotationState, status=202, writes=True)
def rotate() -> RotationState:
    """Starts to seal every secret with another key; while that runs, returns how far it is."""
    return show(key_rotation.start(by=me()))


@route("GET", "/api/admin/rotate-encryption-key", scope="admin", answer=RotationState, may_be_absent=True)
def latest() -> RotationState:
    """Returns the latest rotation."""
    rotation = encryption_keys.latest()
    if rotation is None:
        raise NotFound("The encryption key was never rotated.")
    return show(rotation)


@route("GET", "/api/admin/active-key", scope="admin", answer=ActiveEncryptionKey)
def active() -> ActiveEncryptionKey:
    """Returns the id of the key that seals secrets now."""
    key = encryption_keys.every()[0]
    return ActiveEncryptionKey(id=key.id, created_at=key.created_at, source=encryption_keys.source())


@route("GET", "/api/admin/encryption-keys", scope="admin", query=Paged, answer=EncryptionKeyPage)
def keys(query: Paged) -> dict[str, object]:
    """Lists the keys that were ever used, the active one first."""
    found = listed(encryption_keys.every())
    return found | {"data": [EncryptionKey(**key._asdict()) for key in found["data"]]}
