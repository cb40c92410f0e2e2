"""How many queries an answer takes and how PostgreSQL finds its rows: the doors in this process, each query explained.

A scan is big when it walks a table, or the whole of an index, of more than 50,000 rows; rows read are those that
PostgreSQL looked at in all queries of an answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, text

from app.extensions import db
from bench.gateway.processes import CannotMeasure
from bench.portal.browser import TOKEN
from bench.portal.sizes import PASSWORD
from bench.portal.visits import PART, Visit

BIG = 50_000  # rows


class Looked(msgspec.Struct, kw_only=True):
    """What one answer took in the database."""

    queries: int
    rows_read: int
    scans: list[str]  # "Seq Scan on usage_entry", the big ones
    slowest_ms: float
    slowest: str


class Doors:
    """The application's doors in this process, and who is signed in there."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._clients: dict[str, FlaskClient] = {}
        self._tokens: dict[str, str] = {}
        with app.app_context():
            self._big = {
                row[0]
                for row in db.session.execute(
                    text("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > :big"), {"big": BIG}
                )
            }
            db.session.remove()

    def look(self, visit: Visit) -> Looked:
        """Visit once to count queries, and have each of them explained."""
        told: list[tuple[str, Any]] = []
        self._token(visit.who) if visit.kind == "api" else self._client(visit.who)  # whose queries are not the visit's
        with self._listening(told):
            self._visit(visit)
        scans: list[str] = []
        rows, slowest, slowest_ms = 0, "", 0.0
        with self._app.app_context(), db.engine.connect() as connection:
            for statement, parameters in told:
                if not statement.lstrip().upper().startswith(("SELECT", "WITH")):
                    continue
                plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar()
                [top] = plan
                rows += _walk(top["Plan"], self._big, scans)
                if top["Execution Time"] > slowest_ms:
                    slowest, slowest_ms = statement, float(top["Execution Time"])
                connection.rollback()
        return Looked(
            queries=len(told), rows_read=rows, scans=sorted(set(scans)), slowest_ms=round(slowest_ms, 1),
            slowest=" ".join(slowest.split())[:2000],
        )  # fmt: skip

    def timed(self, visit: Visit) -> float:
        """Milliseconds of one visit, in this process."""
        begun = time.perf_counter()
        self._visit(visit)
        return (time.perf_counter() - begun) * 1000

    def _visit(self, visit: Visit) -> None:
        if visit.kind == "api":
            answer = self._app.test_client().get(
                visit.path, headers={"Authorization": f"Bearer {self._token(visit.who)}"}
            )
        else:
            answer = self._client(visit.who).get(visit.path, headers=PART if visit.kind == "part" else {})
        if answer.status_code != 200:
            raise CannotMeasure(f"{visit.name} is answered with {answer.status_code}: {answer.get_data(True)[:300]}")

    def _client(self, who: str) -> FlaskClient:
        if who not in self._clients:
            client = self._clients[who] = self._app.test_client()
            found = TOKEN.search(client.get("/sign-in").get_data(as_text=True))
            form = {"username": who, "password": PASSWORD, "csrf_token": found[1] if found else ""}
            if client.post("/sign-in", data=form).status_code != 303:
                raise CannotMeasure(f"{who} cannot sign in")
        return self._clients[who]

    def _token(self, who: str) -> str:
        if who not in self._tokens:
            answer = self._app.test_client().post("/token", data={"username": who, "password": PASSWORD})
            self._tokens[who] = answer.get_json()["access_token"]
        return self._tokens[who]

    @contextmanager
    def _listening(self, told: list[tuple[str, Any]]) -> Iterator[None]:
        def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            told.append((statement, parameters))

        with self._app.app_context():
            engine = db.engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", note)


def _walk(node: dict[str, Any], big: set[str], scans: list[str]) -> int:
    """Notes big scans of a plan; how many rows its leaves looked at."""
    kind, loops = node["Node Type"], node.get("Actual Loops", 1)
    rows = 0
    if "Scan" in kind and "Relation Name" in node:
        looked = (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) * loops
        rows += round(looked)
        table = node["Relation Name"]
        whole = kind == "Seq Scan" or (
            "Index" in kind and "Index Cond" not in node and "Bitmap" not in kind and looked > BIG
        )
        if whole and table in big and looked > BIG / 10:
            scans.append(f"{kind} on {table}")
    return rows + sum(_walk(child, big, scans) for child in node.get("Plans", []))
