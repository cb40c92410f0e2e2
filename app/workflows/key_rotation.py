"""Rotation of the encryption key: a new key is kept, every secret is sealed with it, and the old keys go.

Each step leaves a state in which everything can be read, and that the next run goes on from, so that a rotation may be killed
at any instant:

1. `start` notes the rotation. There is never more than one.
2. The new key is written into the file, before the old ones. Processes read the file anew when a secret names a key that they
   don't know, and before they seal.
3. Secrets are sealed with it, a few in each transaction, and published.
4. When none is left and Redis has them all, the old keys leave the file, and the rotation is done.

Keys from the settings are made and removed by the operator; a rotation moves every secret to the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import func, select, text

from app import current
from app.clock import now
from app.domain import audit, credentials, deliveries, encryption_keys, providers, sync
from app.domain.changes import PendingChange, mark_for_publication
from app.domain.credentials import Credential
from app.domain.deliveries import Delivery
from app.domain.encryption_keys import EncryptionKey, Rotation
from app.domain.errors import Conflict, Unavailable
from app.domain.person import Person
from app.extensions import db, transaction
from app.queue import enqueue_after_commit
from app.runtime import failpoints
from app.runtime.sealing import SealingError, key_id
from app.workflows import publication
from config import change_kept_secrets

JOB = "app.jobs.encryption.run"
AT_ONCE = 20  # secrets of one transaction


class KeysFromSettings(Conflict):
    """There is no other key to rotate to."""

    code = "keys_from_settings"


def start(*, by: Person | None) -> Rotation:
    """Start a rotation, or return the one that runs. The worker carries it out. Raises `KeysFromSettings` if every secret is
    sealed with the first of the settings' keys already."""
    rotation = encryption_keys.running()
    if rotation is None:
        encryption_keys.note_keys()
        counted = encryption_keys.counts()
        active = encryption_keys.ids()[0]
        if encryption_keys.source() == "settings" and not counted.keys() - {active}:
            raise KeysFromSettings(
                "Every secret is sealed with the first of security.encryption_keys. Put a new key before it, restart, then"
                " rotate."
            )
        old = max(counted.keys() - {active, ""}, default=active) if encryption_keys.source() == "settings" else active
        rotation = Rotation(from_key=old, total=encryption_keys.count_sealed(), started_by=by.username if by else None)
        db.session.add(rotation)
        db.session.flush()
        facts = encryption_keys.summary(rotation) | {"state": "started"}
        audit.record(by, "encryption_key.rotate", "encryption_key", rotation.id, facts=facts)
    enqueue_after_commit(JOB)
    return rotation


def start_if_due() -> None:
    """Start a rotation if the active key of the file is older than `security.encryption_key_days`."""
    if encryption_keys.running() is not None:
        return
    days = current.config().security.encryption_key_days
    encryption_keys.note_keys()
    since = encryption_keys.age_of_active()
    if days and encryption_keys.source() == "file" and since is not None and since < now() - timedelta(days=days):
        start(by=None)


def run(progress: Callable[[int, int], None] = lambda done, total: None) -> Rotation | None:
    """Carry out the rotation that runs, from wherever it is; returns it, None if there is none.

    `progress` is told how many secrets of how many are sealed anew. It may run twice at the same time. A secret that no key
    opens makes the rotation fail: nothing is lost, and all keys stay. Raises `Unavailable` if Redis does not take the secrets:
    the next run goes on.
    """
    running = encryption_keys.running()
    if running is None:
        return None
    id = running.id
    to_key = transaction(_prepare, id)
    failpoints.reach("key_kept")
    try:
        while (step := transaction(_seal_some, id, to_key)) is not None:
            progress(*step)
            failpoints.reach("key_sealed")
    except SealingError as error:
        transaction(_finish, id, "failed", f"A secret cannot be opened: {error}.")
        return db.session.get(Rotation, id)
    publication.catch_up()
    transaction(_must_be_published)
    failpoints.reach("key_published")
    transaction(_retire, id, to_key)
    return db.session.get(Rotation, id)


def _prepare(id: str) -> str:
    """Keeps the key to rotate to, and returns its id. If a run was killed before it could say which key it had made, that one
    is taken."""
    rotation = db.session.get(Rotation, id, with_for_update=True, populate_existing=True)
    if rotation is None or rotation.state != "running":
        raise Conflict("This rotation is over.")
    if not rotation.to_key:
        if encryption_keys.source() == "file":
            _keep_new_key()
            failpoints.reach("key_made")
        rotation.to_key = encryption_keys.ids()[0]
        encryption_keys.note_keys()
    elif rotation.to_key not in encryption_keys.ids():
        raise Unavailable(f"The encryption key {rotation.to_key} is not there. Put it back, or restart with it.")
    return rotation.to_key


def _keep_new_key() -> None:
    seen = set(db.session.scalars(select(EncryptionKey.id)))

    def put_first(kept: dict[str, Any]) -> None:
        if key_id(kept["encryption_keys"][0].encode()) in seen:
            kept["encryption_keys"].insert(0, Fernet.generate_key().decode())

    change_kept_secrets(current.config().secrets_file, put_first)


def _seal_some(id: str, to_key: str) -> tuple[int, int] | None:
    """Seals a few secrets with the new key; returns how many of how many are, None when all are."""
    rotation = db.session.get(Rotation, id, with_for_update=True, populate_existing=True)
    waiting = encryption_keys.waiting(to_key, AT_ONCE)
    if rotation is None or not waiting:
        return None
    for item in waiting:
        if isinstance(item, Credential):
            credentials.seal_anew(item)
        else:
            providers.seal_anew(item)
            mark_for_publication("directory")
    db.session.flush()
    rotation.total = encryption_keys.count_sealed()
    rotation.done = encryption_keys.counts().get(to_key, 0)
    return rotation.done, rotation.total


def _must_be_published() -> None:
    """Raises `Unavailable` while Redis may hold secrets of an old key."""
    with_credentials = (PendingChange.kind == "person") & PendingChange.object_id.in_(select(Credential.person_id))
    pending = select(func.count()).where((PendingChange.kind == "directory") | with_credentials)
    if db.session.scalar(pending):
        raise Unavailable("Redis does not have the secrets yet. The rotation goes on when it has.")


def _retire(id: str, to_key: str) -> None:
    """Lets the old keys go, unless somebody has just sealed with one of them.

    PostgreSQL is asked to let everyone finish who has begun to write a provider or a credential, as they may have sealed with
    the old key; SQLite has one writer at a time.
    """
    if db.engine.dialect.name == "postgresql":
        db.session.execute(text("SET LOCAL lock_timeout = '3s'"))
        db.session.execute(text("LOCK TABLE provider, personal_credential IN ACCESS EXCLUSIVE MODE"))
    if encryption_keys.waiting(to_key, 1):
        raise Unavailable("A secret was sealed meanwhile. The rotation goes on with it.")
    for delivery in db.session.scalars(
        select(Delivery).where(Delivery.state == "waiting", Delivery.channel == "email")
    ):
        deliveries.seal_anew(delivery, to_key)
    sync.seal_anew()
    if encryption_keys.source() == "file":
        failpoints.reach("key_retiring")

        def keep_new(kept: dict[str, Any]) -> None:
            keys = [key for key in kept["encryption_keys"] if key_id(key.encode()) == to_key]
            kept["encryption_keys"] = keys or kept["encryption_keys"]

        change_kept_secrets(current.config().secrets_file, keep_new)
        failpoints.reach("key_retired")
    kept = encryption_keys.ids()
    for key in db.session.scalars(select(EncryptionKey).where(EncryptionKey.retired_at.is_(None))):
        if key.id not in kept:
            key.retired_at = now()
    _finish(id, "done", None)


def _finish(id: str, state: str, error: str | None) -> None:
    rotation = db.session.get(Rotation, id, with_for_update=True, populate_existing=True)
    if rotation is None or rotation.state != "running":
        return
    rotation.state, rotation.error, rotation.finished_at = state, error, now()
    rotation.total = encryption_keys.count_sealed()
    rotation.done = encryption_keys.counts().get(rotation.to_key, 0)
    facts = encryption_keys.summary(rotation) | {"state": state}
    audit.record(None, "encryption_key.rotate", "encryption_key", id, reason=error, facts=facts)
