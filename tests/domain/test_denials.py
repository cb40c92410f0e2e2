"""What /v1 denied stands in the audit log: soon, with whose it was, and in numbers that a flood cannot raise."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import redis
from sqlalchemy import select

from app import clock, current, directory
from app.domain import denials, keys
from app.domain.audit import AuditEntry
from app.extensions import db, transaction
from app.gateway.denials import HOUR_MS, Denials
from tests.house import People

RECORD = directory.CallerRecord(id="key-1", kind="key", name="app", person_id="", username="owner")


@pytest.fixture
def counting(people: People, wire: redis.Redis) -> Denials:
    return Denials(wire.execute_command, current.secrets().key_pepper)


def entries(action: str) -> list[AuditEntry]:
    db.session.rollback()
    return list(db.session.scalars(select(AuditEntry).where(AuditEntry.action == action).order_by(AuditEntry.id)))


def test_a_revoked_key_that_is_still_used_is_named(people: People, counting: Denials) -> None:
    key, text = transaction(keys.create, people.owner, by=people.owner, name="app")
    transaction(keys.revoke, key, by=people.owner)
    counting.key(text)
    counting.tell()
    assert denials.write_down() == 1
    (entry,) = entries("key.refuse")
    assert (entry.actor, entry.object_kind, entry.object_id, entry.object_name) == ("portico", "key", key.id, "app")
    assert (entry.detail["reason"], entry.detail["count"], entry.detail["last4"]) == ("revoked", 1, text[-4:])
    assert denials.write_down() == 0


def test_an_unknown_key_is_known_by_a_mark_alone(counting: Denials) -> None:
    text = "sk-" + "x" * 46
    counting.key(text)
    counting.tell()
    denials.write_down()
    (entry,) = entries("key.refuse")
    assert entry.detail["reason"] == "unknown" and len(entry.object_id) == 8
    assert text not in str((entry.detail, entry.object_id, entry.object_name))


def test_a_denied_model_names_the_person_and_the_key(people: People, counting: Denials) -> None:
    counting.model(msgspec.structs.replace(RECORD, person_id=people.owner.id), "secret")
    counting.tell()
    denials.write_down()
    (entry,) = entries("model.refuse")
    assert (entry.actor, entry.object_id) == ("owner", "secret")
    assert (entry.detail["key_id"], entry.detail["count"]) == ("key-1", 1)


def test_one_drainer_at_a_time_writes(counting: Denials, wire: redis.Redis) -> None:
    counting.key("sk-" + "x" * 46)
    counting.tell()
    wire.set(denials.TURN, "1")
    assert denials.write_down() == 0
    wire.delete(denials.TURN)
    assert denials.write_down() == 1
    assert not wire.exists(denials.TURN)


def test_a_flood_is_two_entries_an_hour(counting: Denials, monkeypatch: pytest.MonkeyPatch) -> None:
    hour_ms = clock.now_ms() // HOUR_MS * HOUR_MS
    at: dict[str, Any] = {"ms": hour_ms}
    monkeypatch.setattr("app.clock.now_ns", lambda: at["ms"] * 1_000_000)
    for _ in range(50):
        for _ in range(10):
            counting.key("sk-" + "x" * 46)
        counting.tell()
        denials.write_down()
        at["ms"] += 1000
    assert [entry.detail["count"] for entry in entries("key.refuse")] == [10]
    at["ms"] = hour_ms + HOUR_MS + 1
    assert denials.write_down() == 1
    assert denials.write_down() == 0
    _, rest = entries("key.refuse")
    assert (rest.detail["count"], rest.detail["span_s"], rest.detail["since_ms"]) == (490, 3600, hour_ms)
