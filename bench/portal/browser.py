"""Somebody at work: signed in with a cookie for pages and with a token for the API, over one kept-alive connection."""

from __future__ import annotations

import http.client
import json
import re
import time
from typing import Any, NamedTuple
from urllib.parse import urlencode

from bench.gateway.processes import CannotMeasure
from bench.portal.sizes import PASSWORD
from bench.portal.visits import PART, Visit

TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')
IDLE_S = 1.0
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Answer(NamedTuple):
    """An answer and the milliseconds from the request to its last byte."""

    status: int
    body: bytes
    ms: float


class Person:
    """A person of the seeded organisation."""

    def __init__(self, port: int, username: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        page = self._ask("GET", "/sign-in")
        found = TOKEN.search(page.body.decode())
        form = urlencode({"username": username, "password": PASSWORD, "csrf_token": found[1] if found else ""})
        if self._ask("POST", "/sign-in", form.encode(), FORM).status != 303:
            raise CannotMeasure(f"{username} cannot sign in")
        form = urlencode({"username": username, "password": PASSWORD})
        told = self._ask("POST", "/token", form.encode(), FORM)
        self._bearer = {"Authorization": f"Bearer {json.loads(told.body)['access_token']}"}

    _cookie = ""
    _used = 0.0

    def visit(self, visit: Visit) -> Answer:
        if visit.kind == "api":
            return self.call("GET", visit.path)
        return self._ask("GET", visit.path, headers=PART if visit.kind == "part" else {})

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """A request to the management API."""
        text = None if body is None else json.dumps(body).encode()
        return self._ask(method, path, text, self._bearer | {"Content-Type": "application/json"}, cookie=False)

    def stream(self, path: str) -> http.client.HTTPResponse:
        """An answer that the caller reads by itself."""
        self._connection.close()
        self._connection.request("GET", path, headers={"Cookie": self._cookie})
        return self._connection.getresponse()

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        cookie: bool = True,
    ) -> Answer:
        sent = dict(headers or {})
        if cookie and self._cookie:
            sent["Cookie"] = self._cookie
        if time.monotonic() - self._used > IDLE_S:  # the server closes what rests
            self._connection.close()
            self._connection.connect()
        begun = time.perf_counter()
        self._connection.request(method, path, body, sent)
        answer = self._connection.getresponse()
        told = answer.read()
        took = (time.perf_counter() - begun) * 1000
        self._used = time.monotonic()
        if given := answer.headers.get_all("Set-Cookie"):
            self._cookie = "; ".join(one.partition(";")[0] for one in given)
        return Answer(answer.status, told, took)
