"""The page of the encryption key: the keys by their ids, and a rotation that the page follows."""

from __future__ import annotations

from collections.abc import Callable

from app.domain import encryption_keys
from app.extensions import db, transaction
from tests.blueprints.admin.conftest import usable
from tests.blueprints.portal.conftest import Browser
from tests.house import People

SignedIn = Callable[[str], Browser]


def test_a_rotation_is_started_and_shown(people: People, signed_in: SignedIn) -> None:
    transaction(encryption_keys.note_keys)
    admin, auditor = signed_in("admin"), signed_in("auditor")
    assert usable(auditor.page("/admin/encryption")) == []
    [row] = auditor.page("/admin/encryption").table().rows
    assert row.cell("State").texts == ["Active"]
    assert admin.post("/admin/encryption/rotation", page="/admin/encryption").status_code == 303
    db.session.rollback()
    rotation = encryption_keys.running()
    assert rotation is not None and rotation.started_by == "admin"
    assert "Running" in admin.page("/admin/encryption").text
    assert auditor.post("/admin/encryption/rotation", page="/admin/encryption").status_code == 403
