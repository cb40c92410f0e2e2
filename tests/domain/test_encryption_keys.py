"""The encryption keys by their ids: which is active, and how many secrets each has sealed."""

from __future__ import annotations

from app.domain import encryption_keys, providers
from app.domain.encryption_keys import EncryptionKey
from app.extensions import db, transaction
from tests.house import People


def test_keys_are_listed_with_the_number_of_their_secrets(people: People) -> None:
    transaction(encryption_keys.note_keys)
    transaction(encryption_keys.note_keys)
    db.session.add(EncryptionKey(id="0" * 12))
    db.session.commit()
    for number in range(3):
        config = {"base_url": "https://api.example.com/v1"} | ({"api_key": "secret"} if number else {})
        transaction(providers.create, by=None, name=f"P{number}", kind="openai", config=config)
    [active] = encryption_keys.ids()
    assert [(key.id, key.state, key.secrets) for key in encryption_keys.every()] == [
        (active, "active", 2),
        ("0" * 12, "retired", 0),
    ]
    assert (encryption_keys.count_sealed(), encryption_keys.counts()) == (2, {active: 2})
    assert len(encryption_keys.waiting(active, 9)) == 0 and len(encryption_keys.waiting("0" * 12, 9)) == 2
    assert encryption_keys.running() is encryption_keys.latest() is None


def test_a_key_that_is_put_back_is_no_longer_retired(people: People) -> None:
    transaction(encryption_keys.note_keys)
    row = db.session.get(EncryptionKey, encryption_keys.ids()[0])
    assert row is not None
    row.retired_at = row.created_at
    db.session.commit()
    transaction(encryption_keys.note_keys)
    assert row.retired_at is None
