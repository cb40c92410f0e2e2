"""What a reserve and a settle over five budgets cost.

`python -m bench.meter [--pairs 4000] [--url redis://…]`: over the hot side's own connection, as a gateway uses it, on an
embedded Valkey of its own unless a URL is given, whose database is then emptied. Every scope of the chain has a budget,
requests and tokens a minute, and a number of parallel requests.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import gevent
import msgspec
import redis
from gevent.pool import Pool

from app import store
from app.gateway.redis_wire import RedisWire
from app.metering import money
from app.metering.reservations import Charge, Meter
from app.metering.scopes import ScopeRef
from app.runtime.ids import new_id
from tests.ledger import books
from tools.embedded_valkey import EmbeddedValkey

CHAIN = tuple(
    ScopeRef(kind, id, id)
    for kind, id in (
        ("key", "key-1"),
        ("subscription", "subscription-1"),
        ("member", "team-1:ada"),
        ("team", "team-1"),
        ("organisation", store.ORGANISATION),
    )
)
# A prompt of some 800 bytes, an answer of at most 1,000 tokens, at 2.50 and 10 a million.
CHARGE = Charge(2_000_000, 10 * money.NANO, 1, 1000, 1000, True, 1200)
COST_NANO, TOKENS = 2_345_000, 420


class Figures(NamedTuple):
    concurrency: int
    pairs_s: float
    median_ms: float
    p99_ms: float
    client_us: float
    redis_us: float


def prepare(client: redis.Redis, rates: bool) -> None:
    client.flushall()
    client.hset(store.METER, mapping={"epoch": new_id(), "run_id": client.info("server")["run_id"]})
    fields = {"limit": money.MAX_NANO, "spec": "month|Europe/Berlin"}
    if rates:
        fields |= {"rpm": 10**9, "tpm": 10**12, "parallel": 10_000}
    for scope in CHAIN:
        client.hset(store.scope(scope.kind, scope.id), mapping=fields)


def redis_cpu_s(client: redis.Redis) -> float:
    told = client.info("cpu")
    return float(told["used_cpu_user_main_thread"]) + float(told["used_cpu_sys_main_thread"])


def measure(url: str, client: redis.Redis, concurrency: int, pairs: int) -> Figures:
    wire = RedisWire(url)
    meter = Meter(wire.call, lambda: wire.run_id)
    scopes = tuple((scope.kind, scope.id, "month-1") for scope in CHAIN)
    event = msgspec.json.encode(books.event(scopes=scopes, cost_nano=COST_NANO, team_id="team-1"))
    took: list[float] = []

    def pair(_: int) -> None:
        began = time.perf_counter()
        hold = meter.reserve(new_id(), CHAIN, CHARGE, event)
        meter.settle(hold, COST_NANO, TOKENS, event)
        took.append(time.perf_counter() - began)

    pool = Pool(concurrency)
    for _ in pool.imap_unordered(pair, range(200)):  # warm up: scripts are sent, periods are learnt
        pass
    took.clear()
    client.delete(store.USAGE)
    redis_s, cpu, began = redis_cpu_s(client), time.process_time(), time.perf_counter()
    for _ in pool.imap_unordered(pair, range(pairs)):
        pass
    wall, cpu, redis_s = time.perf_counter() - began, time.process_time() - cpu, redis_cpu_s(client) - redis_s
    wire.close()
    gevent.sleep(0)
    took.sort()
    return Figures(
        concurrency,
        pairs / wall,
        statistics.median(took) * 1e3,
        took[int(len(took) * 0.99)] * 1e3,
        cpu / pairs * 1e6,
        redis_s / pairs * 1e6,
    )


def run(url: str, pairs: int) -> None:
    print("reserve + settle, 5 budgets    concurrency   pairs/s   ms median   ms p99   client CPU-µs   Redis CPU-µs")
    with redis.Redis.from_url(url) as client:
        for rates, words in ((False, "budgets alone"), (True, "and rates and slots")):
            for concurrency in (1, 32):
                prepare(client, rates)
                one = measure(url, client, concurrency, pairs)
                print(
                    f"{words:<28}{one.concurrency:>14}{one.pairs_s:>10,.0f}{one.median_ms:>12.2f}{one.p99_ms:>9.2f}"
                    f"{one.client_us:>16.0f}{one.redis_us:>15.0f}"
                )
        client.flushall()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4_000)
    parser.add_argument("--url")
    options = parser.parse_args()
    pairs = max(100, min(options.pairs, 50_000))
    if options.url:
        run(options.url, pairs)
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
        valkey = EmbeddedValkey(Path(name) / "s", Path(name) / "data")
        valkey.start()
        try:
            run(f"unix://{Path(name) / 's'}?db=0", pairs)
        finally:
            valkey.stop()


if __name__ == "__main__":
    main()
