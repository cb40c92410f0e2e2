"""A whole Portico under load while its parts die, and what has to be true afterwards."""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
import redis
import requests

from app import store
from app.runtime.ids import new_id
from tests.services.portico import Portico
from tests.services.upstream import CHAT, Upstream, chat
from tests.services.waiting import PATIENCE_S, until

LEASE_S = 3


@dataclass
class Ended:
    """What a client saw of one request."""

    id: str | None = None
    status: int | None = None
    whole: bool = False  # the answer ended as it should, or with an error event


@dataclass
class World:
    """A Portico with one upstream, one person, one key under five budgets' worth of limits."""

    portico: Portico
    upstream: Upstream
    key: str = ""
    key_id: str = ""
    model: str = field(default_factory=lambda: f"small-{new_id()[-8:]}")
    ended: list[Ended] = field(default_factory=list)

    def furnish(self) -> World:
        self.upstream.reset()
        url = self.portico.url
        token = requests.post(
            f"{url}/token", {"username": "admin", "password": self.portico.admin_password}, timeout=PATIENCE_S
        ).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = requests.post(url + path, json=body, headers=headers, timeout=PATIENCE_S)
            assert answer.ok, answer.text
            made: dict[str, Any] = answer.json()
            return made

        provider = post("/api/providers", {"type": "api", "name": f"of {self.model}", "provider": "vllm",
                                           "config": {"base_url": self.upstream.url, "timeout_s": 60}})  # fmt: skip
        post("/api/models", {"name": self.model, "capabilities": ["chat"], "max_output_tokens": 1000,
                             "price": {"input_per_mtok": "1", "output_per_mtok": "2"},
                             "deployments": [{"provider_id": provider["id"], "upstream_model": "small"}]})  # fmt: skip
        subscription = post("/api/subscriptions", {"model": self.model})["id"]
        for scope in (f"subscription/{subscription}", "user/admin", "organisation/default"):
            requests.put(
                f"{url}/api/budgets/{scope}",
                json={"limit": "100", "period": "month"},
                headers=headers,
                timeout=PATIENCE_S,
            )
        made = post("/api/keys", {"name": "load", "budget": {"limit": "100", "period": "day"}})
        self.key, self.key_id = made["key"], made["id"]
        return self

    def ask(self, stream: bool = True, words: int = 8) -> Ended:
        """One request; never raises: what went wrong is what the client saw."""
        seen = Ended()
        self.ended.append(seen)
        body = {"model": self.model, "stream": stream, "messages": [{"role": "user", "content": "word " * words}]}
        connection = http.client.HTTPConnection("127.0.0.1", self.portico.port, timeout=PATIENCE_S)
        try:
            connection.request(
                "POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {self.key}"}
            )
            answer = connection.getresponse()
            seen.id, seen.status = answer.headers["x-request-id"], answer.status
            data = answer.read()
            seen.whole = answer.status == 200 and (
                not stream or data.endswith(b"data: [DONE]\n\n") or b'"upstream_cut"' in data
            )
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        return seen

    @contextmanager
    def load(self, clients: int = 6, delay_s: float = 0.02) -> Iterator[None]:
        """Streams without pause, until the block ends."""
        self.upstream.always(CHAT, lambda body: chat(body, delay_s=delay_s))
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                if self.ask().status != 200:
                    time.sleep(0.05)

        threads = [threading.Thread(target=run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)

    def is_under_way(self) -> None:
        """Wait until streams are in their middle."""
        self.upstream.wait_for(lambda: any(one.chunks_sent and not one.ended_at for one in self.upstream.requests))

    # What has to be true afterwards

    @property
    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.portico.redis_url, decode_responses=True)

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows of its own key."""
        return [row[:-1] for row in self.every_row() if row[-1] == self.key_id]

    def every_row(self) -> list[tuple[Any, ...]]:
        fields = "request_id, attempt, kind, cost_nano, overdraft_nano, status, outcome, scopes, key_id"
        rows = self.query(f"SELECT {fields} FROM usage_entry")
        return [(*row[:-2], json.loads(row[-2]) if isinstance(row[-2], str) else row[-2], row[-1]) for row in rows]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """What the database answers, whichever it is."""
        url = self.portico.env.get("CONFIG_DATABASE_URL")
        if url:
            with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as connection:
                return [tuple(row) for row in connection.execute(sql.encode())]
        with sqlite3.connect(self.portico.data_dir / "portico.db") as database:
            return database.execute(sql).fetchall()

    def booked(self) -> dict[str, int]:
        """What each counter has been charged by the ledger's rows."""
        sums: dict[str, int] = {}
        for *_, cost, _overdraft, _status, _outcome, scopes, _key in self.every_row():
            for kind, id, period in scopes:
                name = store.spent(kind, id, period)
                sums[name] = sums.get(name, 0) + cost
        return sums

    def trouble(self) -> str:
        """What is not as it has to be, or nothing."""
        client = self.redis
        if not client.hget(store.METER, "epoch"):
            return "the meter is closed"
        if leases := client.zcard(store.LEASES):
            return f"{leases} holds are left"
        if waiting := client.xlen(store.USAGE):
            return f"{waiting} events wait"
        booked, counters = self.booked(), list(client.scan_iter(match=store.spent("*", "*", "*")))
        for name in set(counters) | set(booked):
            spent, held = client.hmget(name, "spent", "held")
            if int(held or 0):
                return f"{name} holds {held}"
            if int(spent or 0) != booked.get(name, 0):
                return f"{name} counts {spent}, the books say {booked.get(name, 0)}"
        seen = {ended.id for ended in self.ended if ended.whole}
        if missing := seen - {row[0] for row in self.rows()}:
            return f"{len(missing)} ends that a client saw have no row"
        return ""

    def settles_down(self) -> None:
        until(lambda: not self._looked(), lambda: f"{self._looked()}\n{self.portico.log()}")
        names = [row[:3] for row in self.every_row()]
        assert len(names) == len(set(names))

    def _looked(self) -> str:
        try:
            return self.trouble()
        except (redis.RedisError, sqlite3.Error, psycopg.Error) as error:
            return str(error)

    def works_again(self) -> float:
        """Seconds until a request was served."""
        began = time.monotonic()
        until(lambda: self.ask(stream=False).status == 200, self.portico.log)
        return time.monotonic() - began


class Shared:
    """The Portico of all tests that need no other: it has been through the faults of those before."""

    def __init__(self) -> None:
        self._portico: Portico | None = None

    def portico(self) -> Portico:
        if self._portico is not None and self._portico.process is not None and self._portico.process.poll() is None:
            return self._portico
        self.close()
        self._portico = Portico(OF_A_WORLD).start()
        return self._portico

    def close(self) -> None:
        if self._portico is not None:
            self._portico.close()


OF_A_WORLD = {"CONFIG_SERVER_WORKERS": "2", "PORTICO_LEASE_MS": str(LEASE_S * 1000)}


@pytest.fixture(scope="session")
def shared() -> Iterator[Shared]:
    made = Shared()
    yield made
    made.close()


@pytest.fixture
def world(start_portico: Callable[..., Portico], shared: Shared, shared_upstream: Upstream) -> Callable[..., World]:
    """`world()` is a key, a model and a provider of one's own in a Portico with short leases; `world(**environ)` has a
    Portico of its own with these settings."""

    def begin(**environ: str) -> World:
        portico = start_portico(**OF_A_WORLD, **environ) if environ else shared.portico()
        return World(portico, shared_upstream).furnish()

    return begin
