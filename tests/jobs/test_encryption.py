"""The job of the encryption key: it goes on with a rotation that was asked for, and otherwise leaves the key alone."""

from __future__ import annotations

import pytest
from flask import Flask

from app.jobs import encryption
from app.workflows import key_rotation


def test_it_starts_what_is_due_and_carries_it_out(inside: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(key_rotation, "start_if_due", lambda: done.append("start"))
    monkeypatch.setattr(key_rotation, "run", lambda: done.append("run"))
    encryption.run()
    assert done == ["start", "run"]
