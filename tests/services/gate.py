"""The gateway's own process for tests: gunicorn with the door `v1` alone, its noticeboard written by hand.

What the cold side would publish is published here from a few words, so that a test says all that it stands on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import redis

from app import store
from app.directory import CallerRecord, DatedPrice, Deployment, Directory, Endpoint, Model, Price, Provider
from app.metering import money, periods
from app.metering.usage import UsageEvent
from app.runtime.ids import new_id
from app.runtime.key_text import new_key
from app.runtime.sealing import digest
from config import load
from tests.services.memory import PLACE
from tests.services.upstream import unused_port
from tests.services.waiting import PATIENCE_S, until
from tools.orphans import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
# One dollar a million tokens in, two out: a token costs 1,000 and 2,000 nano-units.
PRICE = Price(id="price", rates={"input_per_mtok": money.NANO, "output_per_mtok": 2 * money.NANO})


class Gate:
    """One gateway; `begin()` empties its Redis, then `provider`, `model`, `key` say what exists."""

    def __init__(self, redis_url: str, **environ: str) -> None:
        self.data_dir = Path(tempfile.mkdtemp(prefix="gate-", dir=PLACE))
        self.port = unused_port()
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("CONFIG_")} | {
            "CONFIG_SERVER_PORT": str(self.port),
            "CONFIG_SERVER_DOORS": "v1",
            "CONFIG_SERVER_WORKERS": "1",
            "CONFIG_STORAGE_DATA_DIR": str(self.data_dir),
            "CONFIG_REDIS_URL": redis_url,
        } | environ  # fmt: skip
        self.config = load(self.env)
        self.pepper = self.config.secrets().key_pepper
        self.redis = redis.Redis.from_url(redis_url)
        self.log_path = self.data_dir / "gate.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._forget()

    def _forget(self) -> None:
        self.models: dict[str, Model] = {}
        self.providers: dict[str, Provider] = {}
        self.endpoints: dict[str, Endpoint] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Gate:
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:application"],
                cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"the gateway did not start:\n{self.log()}") from None
                time.sleep(0.05)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-20_000:]

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def begin(self) -> None:
        """An empty deployment whose meter is open."""
        self._forget()
        self.redis.flushall()
        self.redis.hset(store.METER, mapping={"epoch": new_id(), "run_id": self.redis.info("server")["run_id"]})
        self.publish()

    def provider(self, name: str, kind: str = "vllm", **settings: Any) -> str:
        self.providers[name] = Provider(id=f"provider-{name}", name=name, kind=kind, settings=settings)
        self.publish()
        return f"provider-{name}"

    def model(self, name: str, *providers: str, price: Price | None = PRICE, **fields: Any) -> None:
        """A model with one deployment at each of `providers`, tried in the order given."""
        deployments = tuple(
            Deployment(
                id=f"deployment-{name}-{at}", provider_id=f"provider-{at}", upstream_model=f"{name}-up", priority=n
            )
            for n, at in enumerate(providers)
        )
        dated = () if price is None else (DatedPrice(from_ms=0, price=price),)
        fields = {"capabilities": ("chat", "embeddings"), "max_output_tokens": 1000} | fields
        self.models[name] = Model(
            id=f"model-{name}", name=name, created=1, prices=dated, deployments=deployments, **fields
        )
        self.publish()

    def endpoint(self, path: str, **fields: Any) -> None:
        self.endpoints[path] = Endpoint(path=path, **fields)
        self.publish()

    def publish(self) -> None:
        version = new_id()
        document = Directory(
            version=version,
            models=tuple(self.models.values()),
            providers=tuple(self.providers.values()),
            endpoints=tuple(self.endpoints.values()),
        )
        with self.redis.pipeline() as pipe:
            pipe.set(store.DIRECTORY, msgspec.json.encode(document))
            pipe.set(store.DIRECTORY_VERSION, version)
            pipe.execute()

    def key(
        self, *models: str, id: str | None = None, text: str | None = None, kind: Any = "key", **fields: Any
    ) -> str:
        """A key that may call `models` (all there are by default); its id is the person's and starts with `key-`."""
        text = text or new_key()
        id = id or f"key-{text[-6:]}"
        record = CallerRecord(
            id=id, kind=kind, name=id, username="ada",
            models={name: f"subscription-{name}" for name in models or self.models}, **{"person_id": "person-1"} | fields,
        )  # fmt: skip
        self.redis.set(store.caller(digest(self.pepper, text)), msgspec.json.encode(record))
        return text

    def revoke(self, key: str) -> None:
        self.redis.delete(store.caller(digest(self.pepper, key)))

    def limit(
        self, kind: str, id: str, limit: str | None = None, period: Any = "total", timezone: str = "UTC", **rates: int
    ) -> None:
        """Limits of a scope: money as decimal text; `rpm`, `tpm`, `parallel`."""
        fields: dict[str, Any] = {"spec": periods.spec(period, timezone), **rates}
        if limit is not None:
            fields["limit"] = money.parse(limit)
        self.redis.hset(store.scope(kind, id), mapping=fields)

    def counted(self, kind: str, id: str, period: str = "total") -> tuple[int, int]:
        """Nano-units spent and held."""
        spent, held = self.redis.hmget(store.spent(kind, id, period), "spent", "held")
        return int(spent or 0), int(held or 0)

    def call_event(self, request_id: str) -> bytes:
        """What a reserve keeps of a call that has not begun."""
        return msgspec.json.encode(
            UsageEvent(
                request_id=request_id, attempt=1, at_ms=0, person_id="person-1", model="echo-1", outcome="ok",
                endpoint="/v1/chat/completions", api_type="chat", status=200,
            )
        )  # fmt: skip

    def events(self, count: int = 1) -> list[UsageEvent]:
        """The usage events so far, at least `count` of them, without refused calls."""
        return self._events(count, refused=False)

    def refused(self, count: int = 1) -> list[UsageEvent]:
        """The events of refused calls so far, at least `count` of them."""
        return self._events(count, refused=True)

    def _events(self, count: int, *, refused: bool) -> list[UsageEvent]:
        found: list[UsageEvent] = []

        def enough() -> bool:
            sent = [msgspec.json.decode(fields[b"e"], type=UsageEvent) for _, fields in self.redis.xrange(store.USAGE)]
            found[:] = [event for event in sent if (event.kind == "refusal") is refused]
            return len(found) >= count

        until(enough, lambda: f"fewer than {count} events:\n{self.log()}")
        return found
