"""A first start makes an admin and something to try; a second changes nothing."""

from pathlib import Path

import pytest
import redis

from app import create_app, setup, store
from app.domain import catalog, identity, providers
from app.extensions import db
from app.gateway.endpoints import ENDPOINTS
from config import Config, load
from tests.house import PASSWORD, quick_hashes  # noqa: F401


def _config(tmp_path: Path, redis_url: str, **more: str) -> Config:
    return load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_REDIS_URL": redis_url, **more})


@pytest.mark.slow
def test_a_first_start_is_ready_and_tells_passwords_once(tmp_path: Path, redis_url: str) -> None:
    config = _config(tmp_path, redis_url)
    lines = setup.set_up(config)
    assert [line.split(",")[0] for line in lines] == ["First admin: admin", "Demo person: demo"]
    assert setup.set_up(config) == []
    with create_app(config, ()).app_context():
        admin, demo = (line.rpartition(" ")[2] for line in lines)
        assert identity.authenticate("admin", admin, "192.0.2.1").must_change_password
        assert not identity.authenticate("demo", demo, "192.0.2.1").must_change_password
        models = {model.name: model.restricted for model in db.session.scalars(catalog.offered_models())}
        assert models == {"echo-1": False, "echo-restricted": True}
        assert len(db.session.scalars(providers.all_endpoints()).all()) == len(ENDPOINTS)
    client: redis.Redis = store.connect(redis_url)
    assert client.exists(store.DIRECTORY, store.DIRECTORY_VERSION) == 2


def test_a_password_from_the_settings_is_not_printed(tmp_path: Path, redis_url: str) -> None:
    more = {
        "CONFIG_AUTH_ADMIN_PASSWORD": PASSWORD,
        "CONFIG_AUTH_ADMIN_USERNAME": "root",
        "CONFIG_DEMO_ENABLED": "false",
    }
    config = _config(tmp_path, redis_url, **more)
    assert setup.set_up(config) == []
    with create_app(config, ()).app_context():
        assert not identity.authenticate("root", PASSWORD, "192.0.2.1").must_change_password
        assert db.session.scalars(providers.search()).all() == []


def test_a_redis_that_stays_away_is_told_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "REDIS_PATIENCE_S", 0.1)
    monkeypatch.setattr(setup, "load", lambda: _config(tmp_path, "unix:///nonexistent"))
    assert setup.main() == 1
    assert "Redis does not answer" in capsys.readouterr().err
