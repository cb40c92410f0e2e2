"""The doctor: a line a check, each with a way to put right what is wrong."""

from __future__ import annotations

import re
import resource
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask

from app.__main__ import main
from app.commands import doctor
from bench.gateway.builds import trust
from tests.house import app, config, database_url, home, inside, migrated, quick_hashes, wire  # noqa: F401
from tests.services.receivers import MailServer
from tests.services.tls import TlsRelay

NAMES = ["settings", "database", "redis", "clock", "tls", "smtp", "disk", "descriptors"]

Examine = Callable[..., dict[str, doctor.Finding]]


@pytest.fixture
def examine(inside: Flask, home: Path, redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Examine:
    def look(**settings: str) -> dict[str, doctor.Finding]:
        given = {"STORAGE_DATA_DIR": str(home), "REDIS_URL": redis_url, "DATABASE_URL": database_url} | settings
        for name, value in given.items():
            monkeypatch.setenv(f"CONFIG_{name}", value)
        return dict(doctor.examine())

    return look


def levels(found: dict[str, doctor.Finding]) -> dict[str, str]:
    return {name: finding.level for name, finding in found.items() if finding.level != "ok"}


def test_a_deployment_that_is_well_is_told_so(
    examine: Examine, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 1 << 20))
    assert levels(examine()) == {}
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [[name, "ok"] for name in NAMES]
    assert lines[-1] == "Nothing is wrong."


def test_wrong_settings_stop_the_other_checks(examine: Examine, capsys: pytest.CaptureFixture[str]) -> None:
    found = examine(SERVER_PORT="0")
    assert list(found) == NAMES
    assert found["settings"] == doctor.Finding("error", "server.port: expected 1 to 65535")
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("look at settings.\n")


def test_stores_that_do_not_answer_are_errors(examine: Examine, tmp_path: Path) -> None:
    found = examine(REDIS_URL="redis://127.0.0.1:1", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert {name: levels(found).get(name) for name in ("database", "redis", "clock")} == {
        "database": "error", "redis": "error", "clock": "warning",
    }  # fmt: skip
    assert "database.url" in found["database"].fix


def test_a_database_without_our_tables_asks_for_the_set_up(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert "app.setup" in examine(DATABASE_URL=f"sqlite:///{tmp_path / 'empty.db'}")["database"].fix
    assert examine(DATABASE_URL=f"sqlite:///{tmp_path / 'none.db'}")["database"].level == "warning"
    assert not (tmp_path / "none.db").exists()


def test_a_redis_that_may_drop_keys_is_an_error(examine: Examine, wire: redis.Redis) -> None:
    wire.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert examine()["redis"].fix == "Set maxmemory-policy noeviction."
    finally:
        wire.config_set("maxmemory-policy", "noeviction")


def test_a_host_whose_clock_differs_is_told(examine: Examine, set_clock: Callable[..., None]) -> None:
    from app import clock

    set_clock(clock.from_ms(clock.now_ms() + 90_000))
    assert re.search(r"differ by (8|9)\d\.\d s", examine()["clock"].what)


def test_secrets_that_others_can_read_are_an_error(examine: Examine, home: Path) -> None:
    (home / "secrets.json").chmod(0o644)
    try:
        assert "chmod 600" in examine()["settings"].fix
    finally:
        (home / "secrets.json").chmod(0o600)


@pytest.fixture
def mail() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.stop()


def test_the_mail_server_is_asked(examine: Examine, mail: MailServer) -> None:
    settings = {"MAIL_HOST": "127.0.0.1", "MAIL_PORT": str(mail.port), "MAIL_SECURITY": "none"}
    assert examine(**settings)["smtp"].level == "ok"
    mail.refusals["AUTH"] = "535 no"
    found = examine(**settings, MAIL_USERNAME="portico", MAIL_PASSWORD="wrong")["smtp"]
    assert (found.level, found.fix) == ("error", "Check mail.username and mail.password.")
    assert examine(**settings | {"MAIL_PORT": "1"})["smtp"].level == "error"


def test_the_certificate_of_the_public_address_is_verified(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trust(tmp_path)
    relay = TlsRelay(made, behind=1)
    try:
        url = f"https://localhost:{relay.port}"
        assert "not trusted" in examine(SERVER_PUBLIC_URL=url)["tls"].what
        monkeypatch.setenv("SSL_CERT_FILE", str(made.ca))
        assert examine(SERVER_PUBLIC_URL=url)["tls"].what == "The certificate of localhost ends in 0 days."
    finally:
        relay.close()
    assert examine(SERVER_PUBLIC_URL="https://localhost:1")["tls"].level == "warning"
    assert examine(SERVER_PUBLIC_URL="http://localhost:1")["tls"].level == "warning"


def test_room_and_descriptors_that_run_out_are_told_before_they_have(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = namedtuple("usage", "total used free")
    for free, limit, level in ((1 << 20, 1024, "error"), (2 << 30, 10_000, "warning")):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: usage(1 << 40, 0, free))
        monkeypatch.setattr(resource, "getrlimit", lambda which, limit=limit: (limit, limit))
        found = examine()
        assert (found["disk"].level, found["descriptors"].level) == (level, level)
    monkeypatch.undo()
    examine(BACKUP_FOLDER=str(tmp_path))
    assert "no backup yet" in examine(BACKUP_FOLDER=str(tmp_path))["disk"].what
