"""No date breaks a route: those at the end of time, before its beginning, and none at all."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import msgspec
import pytest
from flask import Flask
from msgspec.inspect import DateTimeType

from app.blueprints.api.contract import OPERATIONS, _parameters_of
from config import Config
from tests.blueprints.portal.conftest import Browser
from tests.house import (  # noqa: F401
    People,
    app,
    configured,
    database_url,
    home,
    migrated,
    quick_hashes,
    sign_in,
    valkey_url,
    visitors,
    wire,
)

DATES = [
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59",
    "9999-12-31",
    "9000-01-01",
    "2500-02-29",
    "1970-01-01T00:00:00Z",
    "1969-12-31",
    "0001-01-01T00:00:00+23:59",
    "0001-01-01",
    "0000-00-00",
    "-1",
    "2026-02-30",
    "2026-13",
    "2026-11",
    "99999999999999999999",
    "NaN",
]
PAIRS = [(DATES[0], DATES[8]), ("2026-11-30", "2026-11-01"), ("1970-01-01", "9999-12-31"), ("2026-01-01", "2026-01-01")]
NAMES = {"from", "to", "since", "until", "at", "month", "day", "date", "start", "end"}


@pytest.fixture
def config(home: Path, valkey_url: str, database_url: str) -> Config:  # noqa: F811
    return configured(home, valkey_url, database_url, "portal,admin,api,public")


def addresses(app: Flask) -> list[str]:
    """Every address that is read, with something in place of its parameters."""
    found = []
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and not rule.rule.startswith("/static"):
            path = re.sub(r"<(?:int:)\w+>", "1", rule.rule).replace("<period>", "day")
            found.append(re.sub(r"<[^>]+>", "x", path))
    return sorted(set(found))


def test_every_query_for_an_instant_has_a_name_that_is_tried_here(app: Flask) -> None:
    asked = set().union(*(_instants(operation.query) for operation in OPERATIONS if operation.query))
    assert asked
    assert asked <= NAMES


@pytest.mark.slow
def test_no_date_in_an_address_breaks_it(app: Flask, visitors: People) -> None:
    admin = Browser(app, "admin")
    paths = [path for path in addresses(app) if _asks_for_dates(admin, path)]
    assert {"/api/audit", "/api/requests", "/usage", "/admin/usage", "/activity", "/admin/chargeback"} <= set(paths)
    queries = ["&".join(f"{name}={date}" for name in sorted(NAMES)) + "&range=custom" for date in DATES]
    queries += [f"from={first}&to={last}" for first, last in PAIRS]
    queries += [f"{name}={date}" for name, date in product(("from", "to"), (DATES[0], DATES[1], DATES[7]))]
    for path, query in product(paths, queries):
        answer = admin.get(f"{path}?{query.replace('+', '%2B')}")
        assert answer.status_code < 500, (path, query)


def _asks_for_dates(admin: Browser, path: str) -> bool:
    if any(operation.rule == path and operation.query and _instants(operation.query) for operation in OPERATIONS):
        return True
    answer = admin.get(f"{path}?range=custom")
    return 'name="from"' in answer.text or path.startswith("/api/requests/admin")


def _instants(query: type[msgspec.Struct]) -> set[str]:
    return {question.name for question in _parameters_of(query) if isinstance(question.kind, DateTimeType)}


def test_no_date_in_a_body_breaks_a_route(app: Flask, visitors: People) -> None:
    admin = sign_in(app, "admin")
    assert admin.post("/api/keys", json={"name": "a", "expires_at": "2999-12-31T23:59:59Z"}).status_code == 201
    id = admin.get("/api/keys").get_json()["data"][0]["id"]
    for date in DATES:
        for answer in (
            admin.post("/api/keys", json={"name": "b", "expires_at": date}),
            admin.patch(f"/api/keys/{id}", json={"expires_at": date}),
        ):
            assert answer.status_code == 422, date


def test_a_form_refuses_the_end_of_time(app: Flask, visitors: People) -> None:
    browser = Browser(app, "admin")
    for day in ("9999-12-31", "3000-01-01", "0001-01-01", "never"):
        answer = browser.post("/keys", page="/keys/new", name="a", lifetime="date", expires_on=day, reach="all")
        assert answer.status_code == 422, day
