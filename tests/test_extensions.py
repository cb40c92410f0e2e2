"""Writing units of work: exclusive on SQLite, patient without freezing anybody, run again when a lock was met."""

import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError, StatementError

from app import extensions
from app.domain import identity
from app.domain.errors import Conflict
from app.extensions import db, transaction, writes
from tests.house import (  # noqa: F401
    People,
    app,
    config,
    database_url,
    home,
    inside,
    migrated,
    people,
    quick_hashes,
    wire,
)


def test_a_unit_that_meets_a_lock_is_run_again_from_its_start(app: Flask, people: People, home: Path) -> None:
    other = sqlite3.connect(home / "portico.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    runs = 0

    def work() -> None:
        nonlocal runs
        runs += 1
        identity.update(identity.named("owner"), by=None, rpm=9)

    start = time.monotonic()
    timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    timer.start()
    transaction(work)
    assert time.monotonic() - start >= 0.3
    assert runs == 1  # the lock is met at BEGIN, before anything has run
    assert identity.named("owner").rpm == 9


def test_patience_ends(people: People, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "PATIENCE_S", 0.2)
    other = sqlite3.connect(home / "portico.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError):
        transaction(identity.update, people.owner, by=None, rpm=9)
    other.execute("ROLLBACK")


def test_readers_are_not_held_up_by_a_writer(people: People, home: Path) -> None:
    db.session.rollback()
    other = sqlite3.connect(home / "portico.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert identity.named("owner").username == "owner"  # who is held up is told that it is locked
    other.execute("ROLLBACK")


def test_many_writers_lose_no_update(app: Flask, people: People) -> None:
    def add() -> None:
        with app.app_context():
            for _ in range(5):
                transaction(lambda: identity.update(p := identity.named("owner"), by=None, rpm=(p.rpm or 0) + 1))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.session.rollback()
    assert identity.named("owner").rpm == 40


def test_units_do_not_nest(people: People) -> None:
    with pytest.raises(RuntimeError, match="inside of another"):
        transaction(lambda: transaction(lambda: None))
    transaction(identity.update, people.owner, by=None, rpm=1)


def test_an_answer_of_400_and_above_keeps_nothing(app: Flask, people: People) -> None:
    @writes
    def view(status: int) -> tuple[str, int]:
        identity.update(identity.named("owner"), by=None, rpm=status)
        return "", status

    with app.test_request_context():
        assert view(422).status_code == 422
        assert identity.named("owner").rpm is None
        assert view(201).status_code == 201
        assert identity.named("owner").rpm == 201


@pytest.mark.parametrize(
    ("status", "kept"), [(200, True), (302, True), (399, True), (400, False), (404, False), (500, False)]
)
def test_a_view_is_committed_below_400_alone(app: Flask, people: People, status: int, kept: bool) -> None:
    @writes
    def view() -> tuple[str, int]:
        identity.update(identity.named("owner"), by=None, rpm=9)
        return "", status

    with app.test_request_context():
        assert view().status_code == status
    db.session.rollback()
    assert identity.named("owner").rpm == (9 if kept else None)


def test_a_check_that_refuses_leaves_the_work_undone(people: People) -> None:
    done: list[str] = []

    def refuse() -> None:
        identity.update(identity.named("owner"), by=None, rpm=9)
        raise Conflict("no")

    with pytest.raises(Conflict):
        extensions.transaction_if(refuse, lambda: done.append("worked"))
    assert (done, identity.named("owner").rpm) == ([], None)
    assert extensions.transaction_if(lambda: None, lambda word: word, "worked") == "worked"


def test_what_waits_for_a_commit_runs_after_it_alone(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int | None] = []
    monkeypatch.setattr(extensions, "_after_commit", [lambda: ran.append(identity.named("owner").rpm)])
    transaction(identity.update, people.owner, by=None, rpm=5)
    assert ran == [5]
    db.session.rollback()

    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        transaction(fail)
    assert ran == [5]


ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-8))])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.datetimes(datetime(1970, 1, 2), datetime(2999, 1, 1), timezones=ZONES))
def test_an_instant_comes_back_as_the_same_instant_in_utc(people: People, moment: datetime) -> None:
    transaction(lambda: setattr(identity.named("owner"), "last_seen_at", moment))
    db.session.expire_all()
    found = identity.named("owner").last_seen_at
    assert found == moment
    assert found is not None and found.tzinfo is UTC
    db.session.rollback()


def test_an_instant_without_its_zone_is_refused(people: People) -> None:
    with pytest.raises(StatementError, match="time zone"):
        transaction(lambda: setattr(identity.named("owner"), "last_seen_at", datetime(2026, 1, 1)))


def test_the_same_name_twice_at_the_same_moment_is_a_conflict(app: Flask, people: People) -> None:
    results: list[str] = []

    def make() -> None:
        with app.app_context():
            try:
                transaction(identity.create, by=None, username="twin", password=None)
                results.append("made")
            except Conflict:
                results.append("conflict")

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["conflict", "conflict", "conflict", "made"]


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import sqlite3, sys
import gevent
from app import create_app
from app.domain import identity, passwords
from app.extensions import transaction
from config import load

folder, redis_url = sys.argv[1:]
app = create_app(load({"CONFIG_STORAGE_DATA_DIR": folder, "CONFIG_REDIS_URL": redis_url}), ())
other = sqlite3.connect(folder + "/portico.db", isolation_level=None)
other.execute("BEGIN IMMEDIATE")
ticks = 0

def tick():
    global ticks
    while True:
        gevent.sleep(0.005)
        ticks += 1

def write():
    with app.app_context():
        identity.named("owner")  # as signing in reads before a route writes
        transaction(lambda: identity.update(p := identity.named("owner"), by=None, rpm=(p.rpm or 0) + 1))

def hash():
    passwords.ROUNDS = 12  # some tenths of a second
    before = ticks
    passwords.hashed("a long enough password")
    return ticks - before

gevent.spawn(tick)
writers, hashing = [gevent.spawn(write) for _ in range(60)], gevent.spawn(hash)
gevent.sleep(0.6)
while_locked = ticks
other.execute("COMMIT")
gevent.joinall([*writers, hashing], raise_error=True, timeout=60)
print(while_locked, hashing.get())
assert all(writer.successful() for writer in writers)
"""


@pytest.mark.slow
def test_greenlets_go_on_while_others_wait_for_the_lock_and_hash_passwords(
    people: People, home: Path, redis_url: str
) -> None:
    db.session.rollback()
    done = subprocess.run(
        [sys.executable, "-c", GREENLETS, str(home), redis_url], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert identity.named("owner").rpm == 60  # more than there are connections in the pool
    while_locked, while_hashing = map(int, done.stdout.split())
    assert while_locked > 5
    assert while_hashing > 5
