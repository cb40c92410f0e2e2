"""Backups: all of the database in one snapshot, restored into an empty one with the same rows, keys and sums."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask
from sqlalchemy import column, create_engine, inspect, select, table, text

from app import clock
from app.ledger import posting
from app.workflows import backups
from config import Config, load
from tests.house import app, config, database_url, home, inside, migrated, quick_hashes, wire  # noqa: F401
from tests.ledger.books import now_event
from tests.things import things  # noqa: F401

PHRASE = "the words of the escrow"


@pytest.fixture
def source(things: Any, app: Flask, config: Config) -> Iterator[Config]:
    """A deployment that has one of everything, and usage."""
    with app.app_context():
        posting.post([now_event() for _ in range(3)])
    return config


def elsewhere(folder: Path, **more: str) -> Config:
    return load({"CONFIG_STORAGE_DATA_DIR": str(folder / "new"), "CONFIG_REDIS_URL": "unix:///nowhere", **more})


def with_secrets_of(source: Config, target: Config) -> Config:
    target.keep_secrets(json.loads(source.secrets_file.read_text()))
    return target


def every_row(config: Config) -> dict[str, list[Any]]:
    engine = create_engine(config.database_url)
    with engine.connect() as connection:
        found = {}
        for name in inspect(connection).get_table_names():
            columns = sorted(one["name"] for one in inspect(connection).get_columns(name))
            rows = connection.execute(select(*map(column, columns)).select_from(table(name)))
            found[name] = sorted(repr([_alike(value) for value in row]) for row in rows)
    engine.dispose()
    return found


def _alike(value: Any) -> Any:
    """As both databases tell it."""
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, bool):
        return int(value)
    text_ = str(value)
    if value is not None and not isinstance(value, str | int):  # a time
        return text_.removesuffix("+00:00")
    return value


@pytest.mark.slow
def test_a_restored_deployment_has_every_row_and_the_same_secrets(source: Config, tmp_path: Path) -> None:
    made = backups.back_up(source, tmp_path / "b.zip")
    target = with_secrets_of(source, elsewhere(tmp_path))
    assert backups.restore(target, tmp_path / "b.zip") == made
    assert every_row(target) == every_row(source)
    assert target.secrets() == source.secrets()
    assert made.rows > 30 and made.cost_nano > 0
    assert (tmp_path / "b.zip").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_secrets_come_along_for_a_passphrase_only(source: Config, tmp_path: Path) -> None:
    backups.back_up(source, tmp_path / "b.zip", passphrase=PHRASE)
    target = elsewhere(tmp_path)
    with pytest.raises(backups.BackupError, match="--with-keys"):
        backups.restore(target, tmp_path / "b.zip")
    with pytest.raises(backups.BackupError, match="does not open"):
        backups.restore(target, tmp_path / "b.zip", passphrase="another phrase of words")
    assert not target.secrets_file.exists()
    backups.restore(target, tmp_path / "b.zip", passphrase=PHRASE)
    assert target.secrets() == source.secrets()
    assert target.secrets_file.stat().st_mode & 0o777 == 0o600


def test_no_secret_is_in_a_backup(source: Config, tmp_path: Path) -> None:
    told = msgspec.structs.replace(source, mail=msgspec.structs.replace(source.mail, password="canary of the mail"))
    backups.back_up(told, tmp_path / "b.zip", passphrase=PHRASE)
    kept = json.loads(source.secrets_file.read_text())
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
        assert json.loads(archive.read("settings.json"))["mail"]["password"] == "(set)"
    for secret in ("canary of the mail", kept["session_secret"], kept["key_pepper"], *kept["encryption_keys"]):
        assert secret.encode() not in everything


@pytest.mark.slow
def test_without_secrets_nothing_is_restored_unless_that_is_accepted(source: Config, tmp_path: Path) -> None:
    backups.back_up(source, tmp_path / "b.zip")
    target = elsewhere(tmp_path)
    with pytest.raises(backups.BackupError, match="Put the kept secrets"):
        backups.restore(target, tmp_path / "b.zip")
    target.secrets()
    with pytest.raises(backups.BackupError, match="key_pepper differs"):
        backups.restore(target, tmp_path / "b.zip")
    assert not (target.data_dir / "portico.db").exists() or not every_row(target)
    backups.restore(target, tmp_path / "b.zip", without_secrets=True)
    assert every_row(target)["usage_entry"] == every_row(source)["usage_entry"]


def test_a_database_with_people_in_it_is_not_overwritten(source: Config, tmp_path: Path) -> None:
    backups.back_up(source, tmp_path / "b.zip")
    before = every_row(source)
    with pytest.raises(backups.BackupError, match="not empty"):
        backups.restore(source, tmp_path / "b.zip")
    assert every_row(source) == before


@pytest.mark.slow
def test_a_restore_that_failed_is_begun_again(source: Config, tmp_path: Path) -> None:
    backups.back_up(source, tmp_path / "b.zip")
    target = with_secrets_of(source, elsewhere(tmp_path))
    _rewrite(
        tmp_path / "b.zip", tmp_path / "damaged.zip", "tables/usage_entry", lambda data: data.replace(b"ok", b"no")
    )
    with pytest.raises(backups.BackupError, match="damaged: usage_entry"):
        backups.restore(target, tmp_path / "damaged.zip")
    assert not every_row(target)["person"]
    backups.restore(target, tmp_path / "b.zip")
    assert every_row(target) == every_row(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.replace(b'"format": 1', b'"format": 9'), "has the format 9"),
        (lambda data: data.replace(b'"revision": "', b'"revision": "x'), "newer than this version"),
        (lambda data: data[:-10], "not a whole backup"),
    ],
)
def test_a_file_that_is_no_backup_of_ours_is_refused(source: Config, tmp_path: Path, change: Any, message: str) -> None:
    backups.back_up(source, tmp_path / "b.zip")
    _rewrite(tmp_path / "b.zip", tmp_path / "other.zip", "manifest.json", change)
    with pytest.raises(backups.BackupError, match=message):
        backups.restore(elsewhere(tmp_path), tmp_path / "other.zip", without_secrets=True)


def test_what_cannot_be_read_or_written_is_told_in_a_sentence(source: Config, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no backup")
    with pytest.raises(backups.BackupError, match="not a whole backup"):
        backups.restore(source, tmp_path / "text")
    with pytest.raises(backups.BackupError, match="Cannot read"):
        backups.restore(source, tmp_path / "nothing")
    with pytest.raises(backups.BackupError, match="Cannot write"):
        backups.back_up(source, tmp_path / "text" / "b.zip")
    with pytest.raises(backups.BackupError, match="is empty"):
        backups.back_up(elsewhere(tmp_path), tmp_path / "b.zip")
    with pytest.raises(backups.BackupError, match="at least 12"):
        backups.passphrase_in(tmp_path / "text")
    assert not list(tmp_path.glob("*.zip"))


def test_backups_are_made_when_due_and_the_oldest_go(source: Config, tmp_path: Path, set_clock: Any) -> None:
    kept = msgspec.structs.replace(source.backup, folder=str(tmp_path / "made"), every_hours=1, keep=2)
    config = msgspec.structs.replace(source, backup=kept)
    assert backups.back_up_if_due(source) is None
    names = []
    for hour in range(3):
        set_clock(clock.from_ms(1_800_000_000_000 + hour * 3_600_000))
        made = backups.back_up_if_due(config)
        assert made is not None
        os.utime(made, (clock.now_s(), clock.now_s()))
        assert backups.back_up_if_due(config) is None
        names.append(made.name)
    assert [path.name for path in backups.made_by_itself(tmp_path / "made")] == names[:0:-1]


@pytest.mark.services
@pytest.mark.slow
def test_a_backup_goes_from_each_database_into_the_other(source: Config, tmp_path: Path, postgres: Any) -> None:
    backups.back_up(source, tmp_path / "sqlite.zip")
    middle = with_secrets_of(source, elsewhere(tmp_path / "pg", CONFIG_DATABASE_URL=postgres.fresh()))
    backups.restore(middle, tmp_path / "sqlite.zip")
    backups.back_up(middle, tmp_path / "postgresql.zip")
    last = with_secrets_of(source, elsewhere(tmp_path / "last"))
    backups.restore(last, tmp_path / "postgresql.zip")
    assert every_row(last) == every_row(source)
    engine = create_engine(middle.database_url)
    with engine.connect() as connection:  # new rows get numbers of their own
        assert connection.scalar(text("SELECT nextval(pg_get_serial_sequence('usage_entry', 'id'))")) == 5
    engine.dispose()


def _rewrite(source: Path, target: Path, member: str, change: Any) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name == member else data)
