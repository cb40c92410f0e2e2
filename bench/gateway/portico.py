"""A whole Portico, started as `make run` starts it, in a data folder of its own, and set up over its management API."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import redis

from app import store
from bench.gateway.builds import ROOT
from bench.gateway.limits import BUDGET, PRICE, RATES
from bench.gateway.processes import (
    CannotMeasure,
    Children,
    Cores,
    find_below,
    halted,
    pin,
    tree,
    unused_ports,
    wait_until,
)

ADMIN, PASSWORD = "admin", "a password of the benchmark"
SIDE = {
    "valkey": "valkey-server",
    "drainer": "app.jobs.drainer",
    "worker": "app.jobs.worker",
    "clock": "app.jobs.clock",
}
BOOKS = ("drainer", "worker", "clock")


class Portico:
    """One instance with one web worker. `ca` is a certificate that it trusts beside nobody else."""

    def __init__(self, name: str, children: Children, cores: Cores, python: Path, folder: Path, ca: Path) -> None:
        self.name = name
        self.port = unused_ports(1)[0]
        self._children = children
        self._cores = cores
        self._python = python
        self._token = ""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONFIG_")}
        inherited.pop("VIRTUAL_ENV", None)
        self.env = inherited | {
            "CONFIG_SERVER_PORT": str(self.port),
            "CONFIG_SERVER_WORKERS": "1",
            "CONFIG_STORAGE_DATA_DIR": str(folder),
            "CONFIG_AUTH_ADMIN_USERNAME": ADMIN,
            "CONFIG_AUTH_ADMIN_PASSWORD": PASSWORD,
            "CONFIG_DEMO_ENABLED": "false",
            "CONFIG_UPSTREAM_ALLOW_PRIVATE": "true",
            "SSL_CERT_FILE": str(ca),
        }
        self.pid = 0
        self.web: list[int] = []
        self.side: dict[str, list[int]] = {}
        self._redis: redis.Redis | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Portico:
        """Start it, wait until it takes traffic, and put each process where it belongs."""
        log = self._children.log(self.name)
        self.pid = self._children.start(
            self.name,
            [self._python, ROOT / "tools" / "run.py"],
            self._cores.load,
            env=self.env,
            cwd=ROOT,
            ended_by=signal.SIGINT,
            within_s=45,
        )
        if not wait_until(lambda: self._is_ready() or not self._children.runs(self.pid), 90) or not self._is_ready():
            raise CannotMeasure(f"Portico did not start: {log.read_text(errors='replace')[-500:]}")
        self.web = find_below(self.pid, "gunicorn")
        self.side = {name: find_below(self.pid, words) for name, words in SIDE.items()}
        if len(self.web) != 1 or not all(len(found) == 1 for found in self.side.values()):
            raise CannotMeasure(f"Portico's processes are not as expected; see {log}")
        pin(self.web, self._cores.gateway)
        for name in BOOKS:
            pin(self.side[name], self._cores.books)
        told = re.search(r"embedded Valkey on (\S+)", log.read_text(errors="replace"))
        if told is None:
            raise CannotMeasure(f"Portico does not tell where its Valkey is; see {log}")
        self._redis = redis.Redis(unix_socket_path=told[1])
        return self

    def stop(self) -> None:
        if self._redis is not None:
            self._redis.close()
        self._children.stop(self.pid)

    def alone(self) -> AbstractContextManager[None]:
        """While this lasts, the books leave the core of the load alone, if they have none of their own."""
        shared = self._cores.books == self._cores.load
        return halted([pid for name in BOOKS for pid in self.side[name]]) if shared else nullcontext()

    def workers(self) -> list[int]:
        """The web processes, to see that none was replaced."""
        return sorted(tree(self.web))

    def _is_ready(self) -> bool:
        try:
            return self._http("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def rest(self, within_s: float) -> bool:
        """Wait until every usage event is in the books; whether that came to be."""
        client = self._redis
        assert client is not None
        return wait_until(lambda: client.xlen(store.USAGE) == 0, within_s)

    # --- the management API --------------------------------------------------------------------------------------

    def _http(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """A request of the first admin; what was answered. Raises `CannotMeasure` on anything but success."""
        if not self._token:
            form = urlencode({"username": ADMIN, "password": PASSWORD}).encode()
            status, told = self._http("POST", "/token", form, content_type="application/x-www-form-urlencoded")
            if status != 200:
                raise CannotMeasure(f"Portico refused the sign-in: {told[:300]!r}")
            self._token = json.loads(told)["access_token"]
        text = json.dumps(body).encode() if body is not None else None
        bearer = f"Bearer {self._token}"
        status, told = self._http(method, path, text, authorization=bearer, content_type="application/json")
        if status >= 300:
            raise CannotMeasure(f"Portico answered {method} {path} with {status}: {told[:300]!r}")
        return json.loads(told) if told else None

    def set_up(self, upstreams: Mapping[str, str]) -> str:
        """A provider and a model for each upstream, by the model's name; a team that is subscribed to them, and limits on
        every scope of the chain. Answers the text of a key of the team for all of them."""
        rates = {"rpm": RATES["rpm"], "tpm": RATES["tpm"]}
        team = self.ask("POST", "/api/teams", {"name": "Bench", "budget": BUDGET, **rates})["id"]
        self.ask("PUT", f"/api/teams/{team}/members/{ADMIN}", {"budget": BUDGET})
        for model, base_url in upstreams.items():
            config = {"base_url": base_url, "api_key": "sk-upstream", "timeout_s": 60}
            provider = self.ask(
                "POST", "/api/providers", {"type": "api", "name": model, "provider": "openai", "config": config}
            )
            deployment = {"provider_id": provider["id"], "upstream_model": "fake"}
            offered = {"name": model, "capabilities": ["chat"], "price": PRICE, "deployments": [deployment]}
            self.ask("POST", "/api/models", offered)
            subscription = self.ask("POST", "/api/subscriptions", {"model": model, "team_id": team})
            self.ask("PUT", f"/api/budgets/subscription/{subscription['id']}", BUDGET)
        self.ask("PUT", "/api/budgets/organisation/default", BUDGET)
        key: str = self.ask("POST", "/api/keys", {"name": "bench", "team_id": team, "budget": BUDGET, **RATES})["key"]
        return key

    def chain(self, key: str) -> list[str]:
        """The limited scopes that a call with this key is charged to."""
        status, told = self._http("GET", "/v1/key", authorization=f"Bearer {key}")
        if status != 200:
            raise CannotMeasure(f"Portico does not know the key it made: {told[:300]!r}")
        limited = [budget["scope"] for budget in json.loads(told)["budgets"] if budget["limit"] is not None]
        return list(dict.fromkeys(limited))

    def seed(self, what: str, count: int, model: str, file: Path | None = None) -> None:
        """So many more keys or models, by `bench.gateway.seed`."""
        command = [str(self._python), "-m", "bench.gateway.seed", what, str(count), model]
        if file is not None:
            command.append(str(file))
        core = self._cores.gateway  # which has nothing to do meanwhile
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=900,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise CannotMeasure(f"making {count} {what} took more than 15 minutes") from None
        if done.returncode != 0:
            raise CannotMeasure(f"making {count} {what} failed: {done.stderr.strip()[-500:]}")
