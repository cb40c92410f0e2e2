"""A rotation of the encryption key can be killed at any instant and goes on; every secret can be read all the while."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask
from redis import Redis

from app import clock, directory, store
from app.domain import audit, encryption_keys, providers, settings
from app.domain.errors import Unavailable
from app.domain.providers import Provider
from app.extensions import db, transaction
from app.runtime.sealing import Sealer, key_id, key_id_of
from app.workflows import key_rotation, publication
from app.workflows.key_rotation import run, start, start_if_due
from config import ROOT, Config, load
from tests.house import People

MANY = 5


@pytest.fixture
def many() -> int:
    """How many secrets there are."""
    return MANY


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


@pytest.fixture
def sealed(people: People, many: int) -> dict[str, str]:
    """Providers with a secret each: what it is, by their ids."""

    def make() -> dict[str, str]:
        encryption_keys.note_keys()
        found = {}
        for number in range(many):
            config = {"base_url": "https://api.example.com/v1", "api_key": f"secret-{number}"}
            found[providers.create(by=None, name=f"P{number}", kind="openai", config=config).id] = f"secret-{number}"
        return found

    return transaction(make)


def everything_can_be_read(config: Config, secrets: dict[str, str], wire: Redis) -> None:
    """By a process that has just started, by one that runs for long, and by the gateway."""
    db.session.rollback()
    fresh = Sealer(config.encryption_keys())
    document = json.loads(wire.get(store.DIRECTORY) or "{}")
    published = {one["id"]: one["sealed"] for one in document["providers"] if one.get("sealed")}
    for item in db.session.query(Provider):
        assert providers.opened(item).api_key == secrets[item.id]
        for text in (str(item.sealed), published[item.id]):
            assert secrets[item.id].encode() in fresh.open(text, directory.place_of(item.id))


def test_every_secret_is_sealed_with_a_new_key_and_the_old_one_goes(
    config: Config, sealed: dict[str, str], wire: Redis, people: People
) -> None:
    old = key_id(config.encryption_keys()[0])
    begun = transaction(start, by=people.admin)
    assert (begun.state, begun.total, begun.from_key) == ("running", MANY, old)
    assert transaction(start, by=people.admin).id == begun.id, "there is never more than one"
    told: list[tuple[int, int]] = []
    done = run(lambda *step: told.append(step))
    assert done is not None and (done.state, done.done, done.total) == ("done", MANY, MANY)
    assert told[-1] == (MANY, MANY)
    [new] = (key_id(key) for key in config.encryption_keys())
    assert (done.to_key, done.from_key) == (new, old) and new != old
    assert {key_id_of(str(item.sealed)) for item in db.session.query(Provider)} == {new}
    states = [(key.id, key.state, key.secrets, key.retired_at is None) for key in encryption_keys.every()]
    assert states == [(new, "active", MANY, True), (old, "retired", 0, False)]
    everything_can_be_read(config, sealed, wire)
    entries = list(db.session.scalars(audit.entries(action="encryption_key.rotate")))
    assert [(one.actor, one.detail["state"]) for one in entries] == [("portico", "done"), ("admin", "started")]
    assert run() is None


class Killed(BaseException):
    """What kill -9 leaves: nothing after it runs, and the transaction is rolled back."""


def instants(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Dies at the first instant, then at the second, and so on, until a run reaches its end."""
    at = 0
    while True:
        at += 1
        reached: list[str] = []

        def die(name: str, at: int = at, reached: list[str] = reached) -> None:
            reached.append(name)
            if len(reached) == at:
                raise Killed

        monkeypatch.setattr("app.runtime.failpoints.reach", die)
        yield at
        if len(reached) < at:
            return


def test_it_can_be_killed_at_any_instant_and_goes_on(
    config: Config, sealed: dict[str, str], wire: Redis, monkeypatch: pytest.MonkeyPatch, people: People
) -> None:
    monkeypatch.setattr(key_rotation, "AT_ONCE", 1)
    kills = 0
    for _ in instants(monkeypatch):
        transaction(start, by=people.admin)
        try:
            run()
        except Killed:
            kills += 1
        db.session.rollback()
        publication.catch_up()
        everything_can_be_read(config, sealed, wire)
        monkeypatch.setattr("app.runtime.failpoints.reach", lambda name: None)
        done = run()
        if done is None:  # it had reached its end
            done = encryption_keys.latest()
        assert done is not None and (done.state, done.done) == ("done", MANY)
        assert len(config.encryption_keys()) == 1
        everything_can_be_read(config, sealed, wire)
    assert kills >= MANY + 4


@pytest.mark.parametrize("many", [48])
def test_a_rotation_that_is_killed_fifty_times_still_comes_to_its_end(
    config: Config, sealed: dict[str, str], wire: Redis, monkeypatch: pytest.MonkeyPatch, people: People
) -> None:
    monkeypatch.setattr(key_rotation, "AT_ONCE", 1)
    transaction(start, by=people.admin)
    kills = 0
    for at in range(64):
        reached: list[str] = []
        instant = 1 if not at else 2 if at <= 48 else at - 46  # after each secret, then at each instant of the end

        def die(name: str, at: int = instant, reached: list[str] = reached) -> None:
            reached.append(name)
            if len(reached) == at:
                raise Killed

        monkeypatch.setattr("app.runtime.failpoints.reach", die)
        try:
            if run() is None:
                break
        except Killed:
            kills += 1
            db.session.rollback()
        everything_can_be_read(config, sealed, wire)
    assert kills >= 50
    assert encryption_keys.running() is None
    assert len(config.encryption_keys()) == 1


def test_a_secret_that_no_key_opens_fails_it_and_all_keys_stay(
    config: Config, sealed: dict[str, str], people: People
) -> None:
    item = db.session.get(Provider, min(sealed))
    assert item is not None
    item.sealed = Sealer([b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]).seal(b"{}", "p")
    db.session.commit()
    transaction(start, by=people.admin)
    failed = run()
    assert failed is not None and failed.state == "failed" and "cannot be opened" in str(failed.error)
    assert len(config.encryption_keys()) == 2
    assert transaction(start, by=people.admin).id != failed.id, "another may be tried"


def test_a_secret_moved_to_another_row_cannot_be_opened(sealed: dict[str, str]) -> None:
    first, second = (db.session.get(Provider, id) for id in sorted(sealed)[:2])
    assert first is not None and second is not None
    second.sealed = first.sealed
    with pytest.raises(Exception, match="another place"):
        providers.opened(second)
    db.session.rollback()


def test_the_old_key_stays_while_redis_may_need_it(
    config: Config, sealed: dict[str, str], monkeypatch: pytest.MonkeyPatch, people: People
) -> None:
    def away(*_: Any) -> int:
        return 0

    monkeypatch.setattr(publication, "catch_up", away)
    monkeypatch.setattr(publication, "publish", lambda changes: False)
    transaction(start, by=people.admin)
    with pytest.raises(Unavailable):
        run()
    assert len(config.encryption_keys()) == 2
    monkeypatch.undo()
    done = run()
    assert done is not None and done.state == "done"


def test_a_key_of_the_file_is_replaced_after_a_quarter(config: Config, sealed: dict[str, str], set_clock) -> None:
    transaction(start_if_due)
    assert encryption_keys.running() is None
    set_clock(clock.now() + timedelta(days=91))
    transaction(start_if_due)
    assert encryption_keys.running() is not None


def test_keys_from_the_settings_are_rotated_to_the_first_and_kept_by_the_operator(
    app: Flask, config: Config, sealed: dict[str, str], people: People
) -> None:
    old = config.encryption_keys()[0].decode()
    new = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    security = msgspec.structs.replace(config.security, encryption_keys=[new, old])
    changed = msgspec.structs.replace(config, security=security)
    app.config["PORTICO"] = changed
    app.config["SEALER"] = Sealer(changed.encryption_keys(), changed.encryption_keys)
    settings.read_anew()
    rotation = transaction(start, by=people.admin)
    assert (rotation.from_key, encryption_keys.source()) == (key_id(old.encode()), "settings")
    done = run()
    assert done is not None and (done.state, done.to_key) == ("done", key_id(new.encode()))
    assert key_id(config.encryption_keys()[0]) == key_id(old.encode()), "the file is left alone"
    with pytest.raises(key_rotation.KeysFromSettings):
        transaction(start, by=people.admin)


@pytest.mark.slow
def test_a_process_that_is_really_killed_leaves_nothing_that_cannot_be_read(
    config: Config, sealed: dict[str, str], wire: Redis, redis_url: str, database_url: str, people: People
) -> None:
    environ = {
        "CONFIG_STORAGE_DATA_DIR": str(config.data_dir),
        "CONFIG_DATABASE_URL": database_url,
        "CONFIG_REDIS_URL": redis_url,
        "PATH": "/usr/bin:/bin",
    }

    def rotate(failpoint: str = "") -> int:
        command = [sys.executable, "-m", "app", "encryption", "rotate"]
        armed = {"PORTICO_FAILPOINTS": f"{failpoint}=kill"} if failpoint else {}
        return subprocess.run(command, env=environ | armed, cwd=ROOT, capture_output=True, timeout=60).returncode

    first = config.encryption_keys()
    for failpoint in ("key_made", "key_kept", "key_sealed", "key_published", "key_retiring", "key_retired"):
        assert rotate(failpoint) == -signal.SIGKILL, failpoint
        everything_can_be_read(config, sealed, wire)
    assert rotate() == 0
    everything_can_be_read(config, sealed, wire)
    assert len(config.encryption_keys()) == 1 and config.encryption_keys() != first
