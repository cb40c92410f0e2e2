"""What an application was made with, for whoever is inside of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from app import create_app, current, store
from app.runtime.sealing import SealingError
from config import load


@pytest.fixture
def side(tmp_path: Path) -> Flask:
    return create_app(
        load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_REDIS_URL": "unix:///nonexistent"}), {"api"}
    )


def test_what_the_application_was_made_with_is_found_by_name(side: Flask) -> None:
    with side.app_context():
        assert current.sealer().open(current.sealer().seal(b"x", "here"), "here") == b"x"
        assert current.secrets().key_pepper == current.config().secrets().key_pepper
        assert current.redis() is store.connect("unix:///nonexistent")  # it connects on first use


def test_outside_of_an_application_nothing_is_found() -> None:
    for ask in (current.config, current.secrets, current.sealer, current.redis):
        with pytest.raises(RuntimeError, match="application context"):
            ask()


def test_each_application_has_its_own(side: Flask, tmp_path: Path) -> None:
    other = create_app(load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path / "other")}), {"api"})
    with side.app_context():
        sealed, pepper = current.sealer().seal(b"x", "here"), current.secrets().key_pepper
    with other.app_context():
        assert current.secrets().key_pepper != pepper
        with pytest.raises(SealingError):
            current.sealer().open(sealed, "here")
