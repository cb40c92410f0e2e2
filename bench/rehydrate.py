"""How long the meter is closed when Redis was lost: the time of a whole count anew.

`python -m bench.rehydrate [--budgets 10000] [--holds 1000]`: on an SQLite file and on a PostgreSQL of its own, with an
embedded Valkey of its own that was flushed; so many counters are in the books, and so many calls go on whose holds are
put back. Waiting for workers is no part of it: they report within a second.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import redis
import structlog
from sqlalchemy import insert

from app import clock, store
from app.extensions import db
from app.ledger import posting
from app.ledger.budgets import SPENT
from app.ledger.recount import recount
from app.metering.periods import window_of
from app.metering.reservations import Hold, Meter, chain_keys
from app.metering.scopes import ScopeRef
from app.runtime.ids import new_id
from tests.ledger import books
from tests.services.postgres import running_postgres
from tools.embedded_valkey import EmbeddedValkey

ROUNDS = 3


def fill(budgets: int, now_ms: int) -> None:
    """So many counters of the running month, and as many of a month long past that the count must leave out."""
    now = window_of("month|UTC", now_ms).name
    before = window_of("month|UTC", now_ms - 100 * 86_400_000).name
    rows = [
        {"kind": "key", "id": f"key-{n}", "period": name, "spent_nano": 1 + n, "entries": 1, "last_at_ms": now_ms}
        for name in (now, before)
        for n in range(budgets)
    ]
    with db.engine.begin() as connection:
        for start in range(0, len(rows), 1000):
            connection.execute(insert(SPENT), rows[start : start + 1000])


def put_back(meter: Meter, holds: int, now_ms: int) -> None:
    """What workers do as soon as a count has begun."""
    count = meter.counting()
    assert count is not None
    window = window_of("month|UTC", now_ms)
    for n in range(holds):
        scopes = (ScopeRef("key", f"key-{n}", "k"), ScopeRef("organisation", store.ORGANISATION, "default"))
        keys = chain_keys(scopes, (window, window))
        meter.restore(count, Hold(new_id(), scopes, (window, window), keys, now_ms, 1000, 100, bounded=True), 0, b"{}")


def measure(words: str, url: str | None, redis_url: str, folder: Path, budgets: int, holds: int) -> None:
    now_ms = clock.now_ms()
    app = books.open_books(books.settings(folder, url, redis_url))
    with app.app_context(), redis.Redis.from_url(redis_url) as wire:
        fill(budgets, now_ms)
        run_id = str(wire.info("server")["run_id"])
        meter = Meter(wire.execute_command, lambda: run_id)
        took = []
        for _ in range(ROUNDS):
            wire.flushall()
            restoring = [0.0]

            def drain(restoring: list[float] = restoring) -> None:
                if not restoring[0]:  # the first time workers put back; their time is not the count's
                    began = time.perf_counter()
                    put_back(meter, holds, now_ms)
                    restoring[0] = time.perf_counter() - began

            began = time.perf_counter()
            assert recount(wire, folder / "spool", drain, posting.post, lambda path: ())
            took.append(time.perf_counter() - began - restoring[0])
            spent, held = wire.hmget(store.spent("key", "key-0", window_of("month|UTC", now_ms).name), "spent", "held")
            assert (int(spent), int(held)) == (1, 1000 if holds else 0)
        print(f"{words:<12}{budgets:>10,}{holds:>8,}{min(took):>10.2f}{max(took):>10.2f}")
        db.session.remove()
        db.engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", type=int, default=10_000)
    parser.add_argument("--holds", type=int, default=1_000)
    options = parser.parse_args()
    budgets, holds = min(options.budgets, 200_000), min(options.holds, 10_000, options.budgets)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print("count anew     budgets   holds    s best   s worst")
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
        folder = Path(name)
        valkey = EmbeddedValkey(folder / "s", folder / "data")
        valkey.start()
        try:
            redis_url = f"unix://{folder / 's'}?db=0"
            measure("sqlite", None, redis_url, folder, budgets, holds)
            with running_postgres() as server:
                measure("postgresql", server.fresh(), redis_url, folder, budgets, holds)
        finally:
            valkey.stop()


if __name__ == "__main__":
    main()
