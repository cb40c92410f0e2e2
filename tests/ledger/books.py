"""Usage events as tests need them, an application with nothing but the books, and what the books should say."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from flask import Flask
from sqlalchemy import ColumnElement, Connection, func, select

from app import clock
from app.domain import budgets, keys, person  # noqa: F401  whose tables posting keeps something in
from app.extensions import Base, db, init_database
from app.jobs.process import be_patient
from app.ledger.budgets import SPENT
from app.ledger.entries import ENTRY, TAGGED
from app.ledger.measures import DIMENSIONS, HOUR_MS, MEASURES, entry_measures
from app.ledger.rollups import HOURLY, ROLLUP, period_start
from app.ledger.summaries import CUT, CUTS, HOURLY_CUTS, group_in
from app.ledger.unpriced import UNPRICED
from app.metering.usage import Attempt, Refusal, UsageEvent
from app.runtime.ids import new_id
from config import Config, Database, Redis, Storage
from tests.services.sqlite import trust_the_machine_always

NOON = 1_793_880_000_000  # 2026-11-05 12:00 UTC, a Thursday


class Somebody(NamedTuple):
    """Who reads the books."""

    id: str
    sees_everything: bool = False


ADA, BOB, ADMIN = Somebody("ada"), Somebody("bob"), Somebody("root", True)


def settings(folder: Path, database_url: str | None = None, redis_url: str | None = None) -> Config:
    return Config(
        storage=Storage(data_dir=str(folder)), database=Database(url=database_url), redis=Redis(url=redis_url)
    )


_opened: dict[str, Flask] = {}  # by the URL of the database


def open_books(config: Config) -> Flask:
    """An application that has the ledger's tables and those that posting keeps something in, empty, and no door. Each
    database has its application and its tables made once: SQL that is asked for again need not be compiled again."""
    known = Base.metadata.tables
    tables = [ENTRY, TAGGED, UNPRICED, HOURLY, ROLLUP, CUT, SPENT]
    tables += [known[name] for name in ("dead_letter", "person", "api_key", "budget")]
    app = _opened.get(config.database_url)
    if app is None:
        app = Flask("books")
        init_database(app, config)
        with app.app_context():
            be_patient(db.engine)
            trust_the_machine_always(db.engine)
        _opened[config.database_url] = app
    app.config["PORTICO"], app.config["SECRETS"] = config, config.secrets()
    with app.app_context(), db.engine.begin() as connection:
        Base.metadata.create_all(connection, tables=tables)  # those that are missing: a test may drop some
        for table in tables:
            connection.execute(table.delete())
    return app


@contextmanager
def opened(config: Config) -> Iterator[Flask]:
    """Empty books with their application's context open."""
    app = open_books(config)
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


def event(**fields: Any) -> UsageEvent:
    """A plain, successful chat of person `ada` at `NOON`."""
    base: dict[str, Any] = {
        "request_id": new_id(),
        "attempt": 1,
        "at_ms": NOON,
        "person_id": "ada",
        "key_id": "key-1",
        "model": "echo",
        "endpoint": "/v1/chat/completions",
        "api_type": "chat",
        "provider_id": "provider-1",
        "deployment_id": "deployment-1",
        "outcome": "ok",
        "status": 200,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost_nano": 125_000,
        "duration_ms": 40,
        "ttft_ms": 7,
        "attempts": (Attempt(deployment_id="deployment-1", provider_id="provider-1", duration_ms=40),),
    }
    base |= fields
    if "scopes" not in fields:
        base["scopes"] = (
            ("key", base["key_id"] or "none", "total"),
            ("user", base["person_id"], f"day-{base['at_ms'] // 86_400_000 * 86_400}"),
            ("organisation", "default", "total"),
        )
    return UsageEvent(**base)


def refused_event(**fields: Any) -> UsageEvent:
    """A call of `ada` that her own budget refused at `NOON`: 2 of the currency, of which half is spent."""
    nano = 1_000_000_000
    refusal = Refusal(
        reason="budget", scope_kind="user", scope_id=fields.get("person_id", "ada"), scope_shown="ada", limit=2 * nano,
        spent=nano, held=nano // 2, amount=3 * nano // 4, affordable_tokens=1234,
    )  # fmt: skip
    base: dict[str, Any] = {
        "kind": "refusal", "outcome": "refused", "status": 429, "error_code": "insufficient_quota",
        "error_message": "The budget of user ada can't pay for this request.", "refused": 1, "refusal": refusal,
        "provider_id": None, "deployment_id": None, "prompt_tokens": 0, "completion_tokens": 0, "cost_nano": 0,
        "duration_ms": 0, "ttft_ms": None, "attempts": (), "scopes": (),
    }  # fmt: skip
    return event(**base | fields)


def now_event(**fields: object) -> UsageEvent:
    """A usage of now, charged to a day that has just begun: only what surely runs is compared."""
    day = f"day-{clock.now_s() // 3600 * 3600}"
    scopes = (("key", "key-1", "total"), ("user", "ada", day), ("organisation", "default", "total"))
    return event(**{"at_ms": clock.now_ms(), "scopes": scopes} | fields)


def some_events(count: int, seed: int = 0, span_ms: int = 40 * 24 * HOUR_MS, until_ms: int = NOON) -> list[UsageEvent]:
    """Varied events over a span that ends at `until_ms`."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        outcome = chance.choice(["ok", "ok", "ok", "error", "cancelled"])
        made.append(
            event(
                at_ms=until_ms - chance.randrange(span_ms),
                person_id=chance.choice(["ada", "bob", "eve"]),
                key_id=chance.choice(["key-1", "key-2", None]),
                team_id=chance.choice([None, None, "team-1"]),
                subscription_id=chance.choice([None, "sub-1"]),
                model=chance.choice(["echo", "large/model"]),
                api_type=chance.choice(["chat", "embeddings"]),
                outcome=outcome,
                status={"ok": 200, "error": 502, "cancelled": 499}[outcome],
                stream=chance.random() < 0.5,
                prompt_tokens=chance.randrange(1000),
                completion_tokens=chance.randrange(1000),
                cost_nano=chance.randrange(10**9),
                ttft_ms=chance.choice([None, chance.randrange(500)]),
            )
        )
    return made


def encode(usage: UsageEvent) -> bytes:
    return msgspec.json.encode(usage)


def count_entries() -> int:
    with db.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(ENTRY)) or 0


def assert_sums_equal_entries(*, derived: bool = False) -> None:
    """Hourly rollups and scope sums equal the entries; with `derived` the longer rollups too."""
    expected: dict[Any, list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    longer: dict[Any, list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    scopes: dict[tuple[str, str, str], int] = defaultdict(int)
    measures = entry_measures(ENTRY)
    with db.engine.connect() as connection:
        names = connection.execute(select(ENTRY.c.request_id, ENTRY.c.attempt, ENTRY.c.kind)).all()
        assert len(names) == len({tuple(name) for name in names})
        query = select(ENTRY, *(measures[name].label(f"m_{name}") for name in MEASURES))
        for row in connection.execute(query):
            group = (*((getattr(row, name) or "") for name in DIMENSIONS[:-1]), row.stream)
            added = [getattr(row, f"m_{name}") for name in MEASURES]
            hours = expected[(row.at_ms - row.at_ms % HOUR_MS, group)]
            for index, number in enumerate(added):
                hours[index] += number
            for kind in ("day", "week", "month"):
                sums = longer[(kind, period_start(kind, row.at_ms), group)]
                for index, number in enumerate(added):
                    sums[index] += number
            for scope in row.scopes:
                scopes[tuple(scope)] += row.cost_nano
        hourly = {
            (row.start_ms, tuple(getattr(row, name) for name in DIMENSIONS)): [getattr(row, m) for m in MEASURES]
            for row in connection.execute(select(HOURLY))
        }
        assert hourly == expected
        spent = {(row.kind, row.id, row.period): row.spent_nano for row in connection.execute(select(SPENT))}
        assert spent == scopes
        hours = {("hour", *of): added for of, added in expected.items()}
        assert _kept_cuts(connection, CUT.c.kind == "hour") == _cut_down(hours, HOURLY_CUTS)
        if derived:
            kept = {
                (row.kind, row.start_ms, tuple(getattr(row, name) for name in DIMENSIONS)): [
                    getattr(row, m) for m in MEASURES
                ]
                for row in connection.execute(select(ROLLUP))
            }
            assert kept == longer
            assert _kept_cuts(connection, CUT.c.kind != "hour") == _cut_down(longer, CUTS)


def _cut_down(whole: dict[Any, list[int]], names: Collection[str]) -> dict[Any, list[int]]:
    """Sums of all groups, by kind, beginning and group, as the cuts of these names should say them."""
    found: dict[Any, list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for (kind, start_ms, group), added in whole.items():
        for cut in names:
            held = found[cut, kind, start_ms, group_in(cut, group)]
            for index, number in enumerate(added):
                held[index] += number
    return {name: held for name, held in found.items() if any(held)}


def _kept_cuts(connection: Connection, where: ColumnElement[bool]) -> dict[Any, list[int]]:
    rows = {
        (row.cut, row.kind, row.start_ms, tuple(getattr(row, name) for name in DIMENSIONS)): [
            getattr(row, measure) for measure in MEASURES
        ]
        for row in connection.execute(select(CUT).where(where))
    }
    return {name: held for name, held in rows.items() if any(held)}
