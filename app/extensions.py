"""The cold side's extensions: the database and its sessions, sign-in, CSRF, and units of work.

SQLite waits for a lock in C, where no greenlet can run. Here a busy database fails immediately instead, and
`transaction` repeats the whole unit of work after a cooperative pause.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from alembic import command, script
from alembic.config import Config as AlembicConfig
from flask import Flask, make_response
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf.csrf import CSRFProtect
from sqlalchemy import JSON, BigInteger, DateTime, MetaData, String, event
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

from config import Config

SQLITE_WAIT_S = 0.005  # the longest that a lock can block all greenlets in C
PATIENCE_S = 10.0  # how long a unit of work waits for the lock
WRITES = "portico_writes"  # an execution option of the connection
UNIT = "portico_unit"  # in the session's info while a unit of work runs

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"

P = ParamSpec("P")
T = TypeVar("T")


class UtcDateTime(TypeDecorator[datetime]):
    """A time with a zone. It comes back in UTC, also from SQLite, which stores no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant needs its time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Every table of the cold side. Ids are the 36 characters of `app.runtime.ids.new_id`; money is nano-units."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        str: String(255),
        int: BigInteger(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
    }


db = SQLAlchemy(metadata=Base.metadata)
migrate = Migrate(directory=str(MIGRATIONS))
login = LoginManager()
csrf = CSRFProtect()


def init_database(app: Flask, config: Config) -> None:
    """Set up SQLAlchemy for `app`, with the options of the configured database."""
    url = config.database_url
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    if url.startswith("sqlite"):
        config.data_dir.mkdir(parents=True, exist_ok=True)
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
            "connect_args": connect_args(config),
            "pool_size": 5,
            "max_overflow": 25,
        }
    else:
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
            "pool_size": 5,
            "max_overflow": 15,
            "pool_timeout": 10,
            "pool_pre_ping": True,
            "pool_recycle": 1800,
            "connect_args": connect_args(config),
        }
    db.init_app(app)
    migrate.init_app(app, db)
    with app.app_context():
        prepare(db.engine)


def connect_args(config: Config) -> dict[str, Any]:
    """What a connection to the configured database is opened with."""
    if config.database_url.startswith("sqlite"):
        return {"timeout": SQLITE_WAIT_S}
    return {"connect_timeout": 5} | ({"prepare_threshold": None} if config.database.pooler else {})


def prepare(engine: Engine) -> None:
    """Give SQLite's connections pragmas and explicit transactions, and PostgreSQL's settings that suit short queries."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_in_sqlite)
    else:
        event.listen(engine, "connect", _configure_postgresql)


def migrate_to(engine: Engine, revision: str = "head") -> None:
    """Run the migrations up to `revision` on the database of `engine`."""
    alembic = _alembic()
    alembic.attributes["connection"] = engine
    command.upgrade(alembic, revision)


def knows_revision(revision: str) -> bool:
    """Whether this version has the migration `revision`."""
    return revision in {one.revision for one in script.ScriptDirectory.from_config(_alembic()).walk_revisions()}


def newest_revision() -> str | None:
    """The last migration of this version."""
    return script.ScriptDirectory.from_config(_alembic()).get_current_head()


def _alembic() -> AlembicConfig:
    alembic = AlembicConfig(str(MIGRATIONS / "alembic.ini"))
    alembic.set_main_option("script_location", str(MIGRATIONS))
    return alembic


def _configure_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, below
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = NORMAL")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _begin_in_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _configure_postgresql(connection: Any, record: Any) -> None:
    # PostgreSQL expects 200 groups of a union: parallel workers would each aggregate thousands, and JIT compilation takes
    # longer than the query. With the default 4 MB it sorts where it could hash, which takes twice as long.
    connection.autocommit = True
    connection.execute("SET max_parallel_workers_per_gather = 0")
    connection.execute("SET jit = off")
    connection.execute("SET work_mem = '32MB'")
    connection.autocommit = False


def is_passing(error: OperationalError) -> bool:
    """Whether a retry of the unit of work can succeed: after a lock, a deadlock or a failed serialisation."""
    original = error.orig
    state = getattr(original, "sqlstate", None)
    return state in ("40001", "40P01", "55P03") or "is locked" in str(original)  # SQLite has no code for it


def transaction(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a new write transaction, commit, and return its result.

    Objects read before are read again. While the database is locked, `work` is repeated from its start for up to
    `PATIENCE_S` seconds, so it must contain nothing but verbs of the domain; then `OperationalError` is raised. Any
    exception of `work` rolls everything back. Units do not nest: `RuntimeError`.
    """
    return _unit(lambda: work(*args, **kwargs))


def transaction_if(check: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `check` and then `work` in one write transaction; what `check` raises leaves everything as it was.

    Nobody else commits in between what `check` has read and what `work` changes: SQLite has one writer at a time, and
    PostgreSQL is asked for serializable transactions, where the later of two such units is run again, `check` too.
    """

    def both() -> T:
        check()
        return work(*args, **kwargs)

    return _unit(both, serializable=db.engine.dialect.name == "postgresql")


def _unit(work: Callable[[], T], *, serializable: bool = False) -> T:
    session = db.session
    options: dict[str, Any] = {WRITES: True} | ({"isolation_level": "SERIALIZABLE"} if serializable else {})
    if session.info.get(UNIT):
        raise RuntimeError("a unit of work cannot begin inside of another")
    deadline = time.monotonic() + PATIENCE_S
    session.info[UNIT] = True
    session.rollback()  # a waiter must not hold a connection: there are fewer connections than waiters
    try:
        with _writers_turn(deadline):
            result = _patiently(deadline, work, options)
    finally:
        session.info.pop(UNIT, None)
    for act in _after_commit:
        act()
    return result


def after_commit(act: Callable[[], None]) -> Callable[[], None]:
    """Register `act` to run after every committed unit of work, once its locks are released."""
    _after_commit.append(act)
    return act


_after_commit: list[Callable[[], None]] = []


def _patiently(deadline: float, work: Callable[[], T], options: dict[str, Any]) -> T:
    session = db.session
    pause = 0.002
    while True:
        session.rollback()
        try:
            session.connection(execution_options=options)
            result = work()
            session.commit()
            return result
        except OperationalError as error:
            session.rollback()
            if not is_passing(error) or time.monotonic() > deadline:
                raise
        except BaseException:
            session.rollback()
            raise
        time.sleep(pause * (0.5 + random.random()))  # noqa: S311 - a pause; cooperative where gevent has patched time
        pause = min(pause * 1.5, 0.02)


@contextmanager
def _writers_turn(deadline: float) -> Iterator[None]:
    """Queue for SQLite's one writer, without polling: only one greenlet or thread of this process tries at a time."""
    if db.engine.dialect.name != "sqlite":
        yield
        return
    turn = _one_writer()
    if not turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise OperationalError("BEGIN IMMEDIATE", None, TimeoutError("the database is locked by other writers"))
    try:
        yield
    finally:
        turn.release()


@cache
def _one_writer() -> threading.Lock:
    """Created on first use, after gevent has patched `threading`."""
    return threading.Lock()


class _Refused(Exception):
    """A view refused; the exception carries its answer out of the transaction, which rolls back."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer


def writes(view: Callable[P, Any]) -> Callable[P, Any]:
    """Make a view one unit of work: committed if its status is below 400, else rolled back.

    The view may run more than once (see `transaction`). Work that must run once, such as hashing a password or calling an
    upstream, belongs before it.
    """

    @wraps(view)
    def unit(*args: P.args, **kwargs: P.kwargs) -> Any:
        def work() -> Any:
            answer = make_response(view(*args, **kwargs))
            if answer.status_code >= 400:
                raise _Refused(answer)
            return answer

        try:
            return transaction(work)
        except _Refused as refused:
            return refused.answer

    return unit
