"""The cold side's world for tests: a real Valkey, a migrated database, one application a test, and three people.

The owner has things, the stranger must not see them, the admin decides; the auditor is an admin who only reads. Where
a team is needed, its lead and its member come along.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
import pytest
import redis
from flask import Flask, has_app_context
from flask.testing import FlaskClient
from sqlalchemy import select

from app import create_app, current, store
from app.domain import catalog, identity, passwords, providers, teams, tokens
from app.domain.catalog import DeploymentSpec
from app.domain.person import Person
from app.domain.teams import Team
from app.extensions import db, transaction
from app.gateway import runtime as gateway
from app.ledger.recount import server_run
from app.setup import migrate
from app.workflows import publication
from config import Config, load
from tests.services.sqlite import trust_the_machine, trust_the_machine_always

PASSWORD = "a long enough password"


@pytest.fixture(autouse=True, scope="session")
def quick_hashes() -> Iterator[None]:
    """bcrypt's smallest cost: what it costs in earnest is another test's matter."""
    kept, passwords.ROUNDS = passwords.ROUNDS, 4
    yield
    passwords.ROUNDS = kept


@pytest.fixture
def valkey_url(redis_url: str) -> str:
    """The URL of a Valkey with nothing in it."""
    return redis_url


@pytest.fixture
def wire(redis_url: str) -> redis.Redis:
    return store.connect(redis_url)


# Each conftest that imports a fixture has a fixture of its own: those of a session are made here once for all of them.
@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of all tests of this process, so that one application can serve many of them."""
    folder = tmp_path_factory.getbasetemp() / "home"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def database_url(home: Path) -> str:
    return f"sqlite:///{home / 'portico.db'}"


@cache
def configured(home: Path, redis_url: str, database_url: str, doors: str) -> Config:
    """Read once, however many tests ask for the same."""
    return load(
        {
            "CONFIG_STORAGE_DATA_DIR": str(home),
            "CONFIG_DATABASE_URL": database_url,
            "CONFIG_REDIS_URL": redis_url,
            "CONFIG_SERVER_DOORS": doors,
        }
    )


@pytest.fixture
def config(home: Path, redis_url: str, database_url: str) -> Config:
    return configured(home, redis_url, database_url, "api,public")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy: the first process that needs it migrates it for all that test at this time."""
    together = tmp_path_factory.getbasetemp()
    return _migrated_in(together.parent if "PYTEST_XDIST_WORKER" in os.environ else together)


@cache
def _migrated_in(together: Path) -> Path:
    folder = together / "migrated"
    folder.mkdir(exist_ok=True)
    path, done = folder / "portico.db", folder / "done"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            made = create_app(load({"CONFIG_STORAGE_DATA_DIR": str(folder)}), ())
            with made.app_context():
                migrate()
                db.engine.dispose()
            done.touch()
    return path


# Making an application, compiling its templates and its SQL takes longer than most tests do: those with the same
# settings share one, over a database and a Redis that are put back to how they were at the beginning.
_made: dict[bytes, Flask] = {}
_worlds: dict[tuple[bytes, str], World] = {}
_migrated: dict[str, Rows] = {}  # what a migrated PostgreSQL database has, by its URL


class Rows(NamedTuple):
    """What a PostgreSQL database has: each table as COPY tells it, and where its sequences are."""

    tables: dict[str, bytes]
    sequences: list[tuple[str, int | None]]


class World(NamedTuple):
    """A database and a Redis as they were at one moment: a connection to a copy in memory, or PostgreSQL's rows, and
    every key."""

    database: sqlite3.Connection | Rows
    keys: list[tuple[bytes, int, bytes]]  # name, ms to live (0: for ever), value as DUMP tells it
    told: Any  # what its maker answered, such as the ids of what it made


@pytest.fixture
def app(request: pytest.FixtureRequest, config: Config, wire: redis.Redis, migrated: Path) -> Iterator[Flask]:
    """The application in the world that the test asks for: empty, with the four `people` (or `visitors`), or with one
    of all `things`."""
    shutil.rmtree(config.spool_dir, ignore_errors=True)
    name = msgspec.json.encode(config)
    if (made := _made.get(name)) is None:
        made = _made[name] = create_app(config, set(config.server.doors))
        with made.app_context():
            trust_the_machine_always(db.engine)
    kept = dict(made.config)
    made.config["TESTING"] = True

    def begin() -> None:
        if _is_sqlite(config):
            with closing(sqlite3.connect(migrated)) as empty:
                _put_back(config, empty)
        elif config.database_url in _migrated:
            _put_back(config, _migrated[config.database_url])
        else:
            migrate()
            _migrated[config.database_url] = _copy(config)
        transaction(providers.ensure_endpoints)
        publication.publish_all()

    def begin_with_people() -> People:
        begin()
        return transaction(make_people)

    def begin_with_things() -> object:
        from tests.things import make_things  # which is made of what is here

        return make_things(made, begin_with_people())

    asked = set(request.fixturenames)
    with made.app_context():
        if "things" in asked:
            told = _as_in_world("things", begin_with_things, config, wire)
            made.config["THINGS"] = told
        elif asked & {"people", "visitors"}:
            _as_in_world("people", begin_with_people, config, wire)
        else:
            _as_in_world("empty", begin, config, wire)
    yield made
    made.config.clear()
    made.config.update(kept)  # tests may have set what they like
    _let_go(made)


def _as_in_world(which: str, begin: Callable[[], object], config: Config, wire: redis.Redis) -> Any:
    """Put the database and Redis into the state that `begin` leaves; it is called once only for the same settings, and
    what it answered then is answered again."""
    name = msgspec.json.encode(config), which
    world = _worlds.get(name)
    if world is None:
        told = begin()
        keys = [(key, max(wire.pttl(key), 0), wire.dump(key)) for key in wire.scan_iter()]
        _worlds[name] = World(_copy(config), keys, told)
        return told
    _put_back(config, world.database)
    with wire.pipeline(transaction=False) as pipe:
        pipe.flushall()
        for key, ms, value in world.keys:
            pipe.restore(key, ms, value)
        pipe.execute()
    return world.told


Once = Callable[[str, Callable[[], Any]], Any]


@pytest.fixture
def once(request: pytest.FixtureRequest, app: Flask, config: Config, wire: redis.Redis) -> Once:
    """`once(name, make)` is a world of a module's own on top of that which the test asks for: `make` is called once, and
    what it left and answered is put back each time. It may answer no rows of the database: their session ends."""

    def world(name: str, make: Callable[[], Any]) -> Any:
        with nullcontext() if has_app_context() else app.app_context():
            db.session.rollback()
            told = _as_in_world(f"{request.module.__name__}.{name}", make, config, wire)
            db.session.rollback()
        return told

    return world


def _is_sqlite(config: Config) -> bool:
    return config.database_url.startswith("sqlite")


def _copy(config: Config) -> sqlite3.Connection | Rows:
    """The database as it is now, for `_put_back`."""
    if _is_sqlite(config):
        copy = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(_path(config))) as database:
            database.backup(copy)
        return copy
    with _postgres(config) as database:
        tables = [name for (name,) in database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        sequences = database.execute("SELECT sequencename, last_value FROM pg_sequences").fetchall()
        rows = {}
        for table in tables:
            with database.cursor().copy(f'COPY "{table}" TO STDOUT'.encode()) as told:
                rows[table] = b"".join(told)
        return Rows(rows, sequences)


def _put_back(config: Config, world: sqlite3.Connection | Rows) -> None:
    if isinstance(world, sqlite3.Connection):
        with closing(sqlite3.connect(_path(config), timeout=10)) as database:
            trust_the_machine(database)
            world.backup(database)
        return
    with _postgres(config) as postgres:  # emptied row by row: new files for each table would take far longer
        without_keys = "SET session_replication_role = replica"
        emptied = "; ".join([without_keys, *(f'DELETE FROM "{table}"' for table in world.tables)])
        postgres.execute(emptied.encode())
        for name, last in world.sequences:
            postgres.execute("SELECT setval(%s::regclass, %s, %s)", (f'"{name}"', last or 1, last is not None))
        for table, rows in world.tables.items():
            if rows:
                with postgres.cursor().copy(f'COPY "{table}" FROM STDIN'.encode()) as told:
                    told.write(rows)


def _postgres(config: Config) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(config.database_url.replace("+psycopg", ""))


def _path(config: Config) -> str:
    return config.database_url.removeprefix("sqlite:///")


def _let_go(made: Flask) -> None:
    for runtime in gateway._of_process.values():  # what it knows is of a world that ends
        runtime._beats.kill()
    gateway._of_process.clear()
    with made.app_context():
        db.session.remove()
        db.engine.dispose()  # the last connection that closes puts SQLite's log away: it would grow with each world


@pytest.fixture
def inside(app: Flask) -> Iterator[Flask]:
    """An application context, for tests that call verbs of the domain themselves."""
    with app.app_context():
        yield app
        db.session.remove()


@dataclass
class People:
    admin: Person
    owner: Person
    stranger: Person
    auditor: Person


def make_person(username: str, role: str = "user") -> Person:
    return identity.create(by=None, username=username, password=passwords.hashed(PASSWORD), role=role)


def make_people() -> People:
    return People(
        make_person("admin", "admin"),
        make_person("owner"),
        make_person("stranger"),
        make_person("auditor", "admin-readonly"),
    )


def make_team() -> Team:
    """A team that `lead` owns and `member` is in."""
    made = teams.create(by=make_person("lead"), name="Research")
    teams.put_member(made, make_person("member"), by=made.members[0].person, role="member")
    return made


@pytest.fixture
def people(inside: Flask) -> People:
    """The four, inside of an application context that lasts as long as the test."""
    made = _four()
    db.session.rollback()
    return made


@pytest.fixture
def visitors(app: Flask) -> People:
    """The four without that context, for tests with browsers: Flask keeps who is signed in in the context."""
    with app.app_context():
        made = _four()
        db.session.expunge_all()
    return made


def _four() -> People:
    found = {person.username: person for person in db.session.scalars(select(Person))}
    return People(**{name: found[name] for name in ("admin", "owner", "stranger", "auditor")})


def offer(app: Flask, name: str = "small", **values: Any) -> str:
    """A model for everybody to ask for; its name."""
    with app.app_context():
        transaction(make_model, None, name, **values)
    return name


def make_model(admin: Person | None = None, name: str = "small", **values: Any) -> catalog.Model:
    """A model on an echo provider, with a price unless another is given."""
    provider = db.session.query(providers.Provider).filter_by(kind="echo").first()
    if provider is None:
        provider = providers.create(by=admin, name="Echo", kind="echo", config={})
    given: dict[str, Any] = {
        "price": {"input_per_mtok": "1", "output_per_mtok": "2"},
        "deployments": [DeploymentSpec(provider_id=provider.id, upstream_model="echo")],
        **values,
    }
    return catalog.create_model(by=admin, name=name, **given)


class Program:
    """A client of the management API with an access token."""

    def __init__(self, client: FlaskClient, token: str | None) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __getattr__(self, method: str) -> Any:
        def call(path: str, **arguments: Any) -> Any:
            return getattr(self.client, method)(
                path, headers={**self.headers, **arguments.pop("headers", {})}, **arguments
            )

        return call


def sign_in(app: Flask, username: str, *, scope: str = "") -> Program:
    """A program with a fresh access token of a person, made directly: signing in itself has tests of its own."""
    with nullcontext() if has_app_context() else app.app_context():  # requests share the test's session if it has one
        text = transaction(lambda: tokens.grant(identity.named(username), scopes=scope.split()).access_token)
    return Program(app.test_client(use_cookies=False), text)


@pytest.fixture
def metered(app: Flask) -> None:
    """The meter is open, and pages may call models."""
    with app.app_context():
        current.redis().hset(store.METER, mapping={"epoch": "1", "run_id": server_run(current.redis())})
