"""The encryption key for programs: which one seals, which ones did, and a rotation that is followed to its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from app.domain import encryption_keys, providers
from app.extensions import transaction
from app.workflows import key_rotation
from config import Config, load
from tests.house import People, sign_in


@pytest.fixture
def config(tmp_path: Path, redis_url: str, database_url: str) -> Config:
    """A data folder of its own: the file of the keys changes."""
    return load(
        {
            "CONFIG_STORAGE_DATA_DIR": str(tmp_path),
            "CONFIG_DATABASE_URL": database_url,
            "CONFIG_REDIS_URL": redis_url,
            "CONFIG_SERVER_DOORS": "api,public",
        }
    )


def test_a_rotation_is_started_once_and_followed(app: Flask, people: People) -> None:
    def make() -> None:
        encryption_keys.note_keys()
        config = {"base_url": "https://api.example.com/v1", "api_key": "secret-1"}
        providers.create(by=None, name="P", kind="openai", config=config)

    transaction(make)
    admin = sign_in(app, "admin")
    old = admin.get("/api/admin/active-key").get_json()
    assert old.keys() == {"id", "created_at", "source"} and old["source"] == "file"
    assert admin.get("/api/admin/rotate-encryption-key").status_code == 404
    begun = admin.post("/api/admin/rotate-encryption-key")
    assert (begun.status_code, begun.get_json()["state"]) == (202, "running")
    assert admin.post("/api/admin/rotate-encryption-key").get_json()["id"] == begun.get_json()["id"]
    key_rotation.run()
    done = admin.get("/api/admin/rotate-encryption-key").get_json()
    assert (done["state"], done["done"], done["total"], done["error"]) == ("done", 1, 1, None)
    assert (done["from_key"], done["to_key"]) == (old["id"], admin.get("/api/admin/active-key").get_json()["id"])
    rows = admin.get("/api/admin/encryption-keys").get_json()["data"]
    assert [(row["id"], row["state"], row["secrets"]) for row in rows] == [
        (done["to_key"], "active", 1),
        (old["id"], "retired", 0),
    ]
    assert sign_in(app, "auditor").post("/api/admin/rotate-encryption-key").status_code == 403
