"""A run: a Portico on the seeded database is asked for everything, in turns, and what it took is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from app import clock, create_app
from app.extensions import db
from app.ids import new_id
from app.ledger import posting, rollups
from app.metering.usage import UsageEvent
from app.setup import migrate
from bench.gateway.builds import say
from bench.gateway.portico import Portico
from bench.gateway.processes import CannotMeasure, Children, Cores, memory_kb, wait_until
from bench.portal.browser import Person
from bench.portal.measures import Derived, Export, Page, Write
from bench.portal.plans import Doors
from bench.portal.seed import conninfo, settings
from bench.portal.sizes import ADMIN, HEAVY, OWNER
from bench.portal.visits import Found, Visit, without_ids
from config import load

EXPORTS = ("/admin/activity?range=7&format=csv", "/admin/keys?format=csv", "/admin/budgets?format=json")
START_S = 600.0
DERIVED = (1_000, 20_000)


class Seeded(Portico):
    """A Portico on a given database; nothing beside the database is kept from run to run."""

    def __init__(self, url: str, children: Children, cores: Cores, python: Path, folder: Path) -> None:
        super().__init__("portico", children, cores, python, folder, folder)
        del self.env["SSL_CERT_FILE"]
        self.env |= settings(url, folder)

    def _is_ready(self) -> bool:
        """Everything is published at a start, which takes longer than others have to wait."""
        return wait_until(super()._is_ready, START_S)


def pages(portico: Portico, asked: list[Visit], repeats: int) -> dict[Visit, list[float]]:
    """Each address so many times, in turns, after one visit each that does not count."""
    people = {who: Person(portico.port, who) for who in (ADMIN, HEAVY, OWNER)}
    took: dict[Visit, list[float]] = {visit: [] for visit in asked}
    for turn in range(repeats + 1):
        begun = time.monotonic()
        for visit in asked:
            answer = people[visit.who].visit(visit)
            if answer.status != 200:
                raise CannotMeasure(f"{visit.name} is answered with {answer.status}: {answer.body[:300]!r}")
            if turn:
                took[visit].append(round(answer.ms, 2))
        if turn in (0, 1) or turn % 10 == 0:
            say(f"round {turn} of {repeats}: {len(asked)} addresses in {time.monotonic() - begun:.0f} s")
    return took


def looked_at(url: str, folder: Path, took: dict[Visit, list[float]]) -> list[Page]:
    """The same addresses once more in this process, with their queries explained; `folder` is the running Portico's."""
    app = create_app(load(settings(url, folder)), ("portal", "admin", "api", "public"))
    doors = Doors(app)
    found = []
    for visit, ms in took.items():
        look = doors.look(visit)
        found.append(
            Page(
                who=visit.who, path=without_ids(visit.path), kind=visit.kind, ms=ms, queries=look.queries,
                rows_read=look.rows_read, scans=look.scans,
            )
        )  # fmt: skip
    with app.app_context():
        db.engine.dispose()
    return found


def writes(portico: Portico, url: str, repeats: int) -> list[Write]:
    """Acts that the gateway must learn of, each some times."""
    heavy, admin = Person(portico.port, HEAVY), Person(portico.port, ADMIN)
    with psycopg.connect(conninfo(url)) as connection:
        open_models = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM model WHERE NOT restricted AND status = 'active' AND NOT EXISTS (SELECT 1 FROM"
                " subscription s JOIN person p ON p.id = s.person_id WHERE s.model_id = model.id AND p.username = %s)"
                " ORDER BY id LIMIT %s",
                (HEAVY, repeats),
            )
        ]
        waiting = [
            row[0]
            for row in connection.execute(
                "SELECT id FROM subscription WHERE status = 'pending' ORDER BY id DESC LIMIT %s", (repeats,)
            )
        ]
        models = [row[0] for row in connection.execute("SELECT name FROM model ORDER BY id LIMIT %s", (repeats,))]
    price = {"input_per_mtok": "1.5", "output_per_mtok": "4"}
    made: list[str] = []

    def make_key(turn: int) -> float:
        answer = admin.call("POST", "/api/keys", {"name": f"bench {turn}"})
        made.append(json.loads(answer.body)["id"])
        return _done(answer.status, answer.body, answer.ms)

    def act(person: Person, method: str, path: str, body: object) -> float:
        answer = person.call(method, path, body)
        return _done(answer.status, answer.body, answer.ms)

    approve = {"decision": "approve"}
    acts: list[tuple[str, int, Callable[[int], float]]] = [
        ("make a key", repeats, make_key),
        ("revoke a key", repeats, lambda turn: act(admin, "DELETE", f"/api/keys/{made[turn]}", None)),
        (
            "subscribe, a person with many keys", len(open_models),
            lambda turn: act(heavy, "POST", "/api/subscriptions", {"model": open_models[turn]}),
        ),
        (
            "approve a request", len(waiting),
            lambda turn: act(admin, "POST", f"/api/subscriptions/{waiting[turn]}/decision", approve),
        ),
        (
            "change a price, which publishes the directory", len(models),
            lambda turn: act(admin, "PUT", f"/api/models/{models[turn]}", {"price": price}),
        ),
        (
            "set a person's budget", repeats,
            lambda turn: act(admin, "PUT", f"/api/budgets/user/{OWNER}", {"limit": str(500 + turn), "period": "month"}),
        ),
    ]  # fmt: skip
    return [Write(what=what, ms=[round(do(turn), 2) for turn in range(count)]) for what, count, do in acts]


def _done(status: int, body: bytes, ms: float) -> float:
    if status >= 300:
        raise CannotMeasure(f"an act is answered with {status}: {body[:300]!r}")
    return ms


def exports(portico: Portico) -> list[Export]:
    """Lists as files, read piece by piece while the worker's memory is watched."""
    found = []
    admin = Person(portico.port, ADMIN)
    for path in EXPORTS:
        before = most = memory_kb(portico.web)
        begun = looked = time.monotonic()
        answer = admin.stream(path)
        size = lines = 0
        while piece := answer.read(256 * 1024):
            size, lines = size + len(piece), lines + piece.count(b"\n")
            if time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                most = max(most, memory_kb(portico.web))
        most = max(most, memory_kb(portico.web))
        found.append(
            Export(
                path=path, rows=lines - (1 if "csv" in path else 2), seconds=round(time.monotonic() - begun, 1),
                mbytes=round(size / 1e6, 1), grown_mb=round((most - before) / 1024, 1),
            )
        )  # fmt: skip
    return found


def derived(url: str, folder: Path, known: Found) -> list[Derived]:
    """What the job `rollups` takes after new events, on the seeded ledger and on an empty one. To be done last: the
    events stay."""
    empty = f"{url.partition('?')[0]}_empty?{url.partition('?')[2]}"
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'DROP DATABASE IF EXISTS "{name}_empty"'.encode())
        connection.execute(f'CREATE DATABASE "{name}_empty"'.encode())
    took = {target: _deriving(target, folder, known) for target in (url, empty)}
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}_empty" WITH (FORCE)'.encode())
    return [
        Derived(events=events, full_s=full, empty_s=alone)
        for events, full, alone in zip(DERIVED, took[url], took[empty], strict=True)
    ]


def _deriving(url: str, folder: Path, known: Found) -> list[float]:
    app = create_app(load(settings(url, folder)), ())
    now_ms = clock.now_ms()
    took = []
    with app.app_context():
        migrate()
        rollups.derive()
        for count in DERIVED:
            events = [_event(number, now_ms, known) for number in range(count)]
            for start in range(0, count, 1000):
                posting.post(events[start : start + 1000])
            begun = time.perf_counter()
            rollups.derive()
            took.append(round(time.perf_counter() - begun, 2))
        db.session.remove()
        db.engine.dispose()
    return took


def _event(number: int, now_ms: int, known: Found) -> UsageEvent:
    """Of one of 5,000 keys, at any time of the last two hours."""
    key = f"bench-{number * 7919 % 5000}"
    return UsageEvent(
        request_id=new_id(), attempt=1, at_ms=now_ms - number * 104_729 % 7_200_000, person_id=f"person-{key}", key_id=key,
        model=known["model"], endpoint="/v1/chat/completions", api_type="chat", provider_id=known["provider"],
        outcome="ok", status=200, stream=number % 2 == 0, prompt_tokens=100, completion_tokens=50, cost_nano=1000,
        duration_ms=400, ttft_ms=80 if number % 2 == 0 else None,
        scopes=(("key", key, "total"), ("organisation", "default", "total")),
    )  # fmt: skip
