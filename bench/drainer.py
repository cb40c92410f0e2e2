"""How many usage events a second the drainer carries from the stream into the books.

`python -m bench.drainer [--events 20000] [--database URL]`: on an SQLite file of its own unless a database is given,
and an embedded Valkey of its own; the events are of 200 people with 3 keys each, 10 models and the last 48 hours.
The tables of the ledger in a given database are dropped and made anew.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import redis
from sqlalchemy import func, select

from app import store
from app.extensions import db
from app.jobs.drainer import Drainer
from app.ledger import entries, measures, rollups
from tests.ledger import books
from tools.embedded_valkey import EmbeddedValkey


def made(count: int) -> list[bytes]:
    chance = random.Random(1)
    events = []
    for _ in range(count):
        person = chance.randrange(200)
        key = f"{person}-{chance.randrange(3)}"
        events.append(
            books.encode(
                books.event(
                    person_id=f"person-{person}",
                    key_id=key,
                    subscription_id=f"sub-{person}",
                    model=f"model-{chance.randrange(10)}",
                    at_ms=books.NOON - chance.randrange(48 * measures.HOUR_MS),
                    stream=chance.random() < 0.5,
                    scopes=(
                        ("key", key, "month-1"),
                        ("subscription", f"sub-{person}", "month-1"),
                        ("user", f"person-{person}", "month-1"),
                        ("organisation", "default", "month-1"),
                    ),
                )
            )
        )
    return events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--database")
    options = parser.parse_args()
    count = min(options.events, 200_000)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
        folder = Path(name)
        valkey = EmbeddedValkey(folder / "s", folder / "data")
        valkey.start()
        try:
            url = f"unix://{folder / 's'}?db=0"
            app = books.open_books(books.settings(folder, options.database, url))
            with app.app_context(), redis.Redis.from_url(url) as wire:
                drainer = Drainer(url, folder / "spool", batch=options.batch)
                drainer.stream.prepare()
                for _ in range(2):  # once to warm up: statements are compiled and tables are not empty
                    with wire.pipeline(transaction=False) as pipe:
                        for event in made(count):
                            pipe.xadd(store.USAGE, {"e": event})
                        pipe.execute()
                    begun, cpu = time.perf_counter(), time.process_time()
                    while drainer.stream.drain(block_ms=10):
                        pass
                    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
                begun = time.perf_counter()
                derived = rollups.derive()
                deriving = time.perf_counter() - begun
                with db.engine.connect() as connection:
                    kept = connection.scalar(select(func.count()).select_from(entries.ENTRY))
                kind = db.engine.dialect.name
                db.engine.dispose()
        finally:
            valkey.stop()
    assert kept == 2 * count, f"{kept} entries of {2 * count} events"
    print(
        f"{kind}: {count} events in {took:.2f} s: {count / took:,.0f} events/s, {cpu / count * 1e6:.0f} CPU-µs an event"
    )
    print(f"{kind}: derived {derived} hourly rows in {deriving:.2f} s")


if __name__ == "__main__":
    main()
