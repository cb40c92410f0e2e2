"""A whole Portico with two workers, the model `small` for everybody, and people who have access tokens."""

from __future__ import annotations

import itertools
import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

import requests

from app.gateway.dialects.openai import MESSAGE_TOKENS, OWN_BYTES
from app.metering import money
from tests.services.portico import Portico
from tests.services.upstream import Upstream
from tests.services.waiting import PATIENCE_S, until

PASSWORD = "a long enough password"
WORDS = {"model": "small", "max_tokens": 3, "messages": [{"role": "user", "content": "one two three"}]}
BYTES = len(json.dumps(WORDS)) + MESSAGE_TOKENS + OWN_BYTES + len("small")
HOLD = BYTES * 1000 + 3 * 2000  # what the words may cost, in nano-units
COST = 3 * 1000 + 3 * 2000  # and what they do cost
numbers = itertools.count(1)


@dataclass
class Person:
    """Somebody with an access token."""

    url: str
    username: str
    token: str

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """What the management API answers; anything but success fails the test."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.request(method, self.url + path, json=body, headers=headers, timeout=PATIENCE_S)
        assert answer.ok, (method, path, answer.text)
        return answer.json() if answer.content else None

    def found(self, path: str) -> Any:
        """What the management API tells once it is there: the ledger learns of calls a moment later."""
        headers = {"Authorization": f"Bearer {self.token}"}
        until(lambda: requests.get(self.url + path, headers=headers, timeout=PATIENCE_S).ok)
        return self("GET", path)

    def key(self, team: str | None = None) -> dict[str, Any]:
        body = {"name": f"key of {self.username}"} | ({} if team is None else {"team_id": team})
        made: dict[str, Any] = self("POST", "/api/keys", body)
        return made

    def subscription(self, team: str | None = None) -> str:
        body = {"model": "small"} | ({} if team is None else {"team_id": team})
        id: str = self("POST", "/api/subscriptions", body)["id"]
        return id

    def browser(self) -> requests.Session:
        """Their browser, signed in."""
        session = requests.Session()
        signed_in = {"username": self.username, "password": PASSWORD}
        assert session.post(f"{self.url}/api/auth/login", json=signed_in, timeout=PATIENCE_S).ok
        return session


@dataclass
class House:
    """The Portico and what its admin does in it."""

    portico: Portico
    upstream: Upstream
    admin: Person = field(init=False)

    def furnish(self) -> None:
        form = {"username": self.portico.admin_username, "password": self.portico.admin_password}
        token = requests.post(f"{self.portico.url}/token", form, timeout=PATIENCE_S).json()["access_token"]
        self.admin = Person(self.portico.url, self.portico.admin_username, token)
        provider = self.admin("POST", "/api/providers", {
            "type": "api", "name": "up", "provider": "vllm", "config": {"base_url": self.upstream.url, "timeout_s": 60},
        })  # fmt: skip
        self.admin("POST", "/api/models", {
            "name": "small", "capabilities": ["chat"], "max_output_tokens": 1000,
            "price": {"input_per_mtok": "1", "output_per_mtok": "2"},
            "deployments": [{"provider_id": provider["id"], "upstream_model": "small"}],
        })  # fmt: skip

    def person(self) -> Person:
        username = f"person-{next(numbers)}"
        self.admin("POST", "/admin/users", {"username": username, "password": PASSWORD})
        return Person(self.portico.url, username, self.admin("POST", f"/admin/token/{username}", {})["access_token"])

    def budget(self, scope: str, nano: int, period: str = "total", **more: Any) -> None:
        self.admin("PUT", f"/api/budgets/{scope}", {"limit": money.text(nano), "period": period, **more})

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the database has."""
        with sqlite3.connect(self.portico.data_dir / "portico.db", timeout=PATIENCE_S) as database:
            return list(database.execute(query, values))

    def booked(self, team: str) -> list[tuple[str, int, list[list[str]]]]:
        """Key, cost and scopes of what the ledger has of a team's calls, without the refused ones."""
        rows = self.rows(
            "SELECT key_id, cost_nano, scopes FROM usage_entry WHERE team_id = ? AND kind <> 'refusal'", team
        )
        return [(key, cost, json.loads(scopes)) for key, cost, scopes in rows]
