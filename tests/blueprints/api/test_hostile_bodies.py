"""No body, path or query makes the management API answer 5xx."""

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet
from flask import Flask

from app.blueprints.api.contract import OPERATIONS
from app.runtime.bodies import FAULT
from tests.house import People, Program, sign_in
from tests.page import read

pytestmark = pytest.mark.slow

DEEP = b'{"config": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES = {
    "nothing": b"",
    "not JSON": b"{",
    "not an object": b"[1, 2]",
    "null": b"null",
    "a number": b"9" * 6000,
    "NaN": b'{"name": NaN}',
    "beyond double": b'{"rpm": 1e999}',
    "huge integers": b'{"name": "x", "provider": "echo", "rpm": ' + b"9" * 6000 + b"}",
    "huge integers inside": b'{"name": "x", "provider": "echo", "config": {"a": 99999999999999999999999999999999}}',
    "lone surrogates": b'{"name": "\\ud800"}',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "NUL characters": b'{"name": "a\\u0000b", "username": "a\\u0000b", "model": "\\u0000", "provider": "echo",'
    b' "refresh_token": "\\u0000", "password": "twelve characters", "ids": ["\\u0000"], "decision": "approve"}',
    "NUL in keys": b'{"name": "x", "provider": "echo", "config": {"a\\u0000": 1}}',
    "many values": b'{"name": "x", "models": [' + b"[]," * 300_000 + b"[]]}",
    "nested deeply": DEEP,
    "nested": b'{"name": "x", "provider": "echo", "config": ' + b'{"a":' * 40 + b"1" + b"}" * 41,
    "duplicate members": b'{"name": "a", "name": "b"}',
    "wrong types": b'{"name": [], "username": {}, "provider": 5, "config": "x", "model": [], "ids": 3, "price": [1]}',
    "far too long": b'{"name": "' + b"x" * 500_000 + b'", "username": "' + b"y" * 100_000 + b'"}',
    "odd times": b'{"name": "x", "expires_at": "0001-01-01T00:00:00+23:59", "decision": "approve", "ids": ["a"]}',
    "odd zones": b'{"limit": "1", "period": "day", "timezone": "../../etc/passwd"}',
    "odd money": b'{"limit": "1e5000", "name": "x", "price": {"input_per_mtok": "NaN"}, "budget": {"limit": -1}}',
}
PATHS = ("x", "%00", "a%00b", "%FF", "..", "default", "%F0%9F%98%80", "x" * 300)
# The others are refused before anybody asks the database, whichever it is.
REACH_THE_DATABASE = {
    "huge integers", "huge integers inside", "lone surrogates", "NUL characters", "NUL in keys", "nested", "wrong types",
    "far too long", "odd times", "odd zones", "odd money",
    "x", "%00", "a%00b", "%FF", "%F0%9F%98%80", "x" * 300,
}  # fmt: skip


def _each(names: Iterable[str]) -> list[ParameterSet]:
    both = pytest.mark.both_databases
    return [pytest.param(name, marks=both if name in REACH_THE_DATABASE else ()) for name in names]


def _paths(rule: str, value: str) -> str:
    for part in ("<id>", "<username>", "<path:name>", "<scope>", "<int:id>", "<period>"):
        rule = rule.replace(part, value)
    return rule


@pytest.fixture
def admin(app: Flask, people: People) -> Program:
    return sign_in(app, "admin")


@pytest.mark.parametrize("what", _each(BODIES))
def test_no_body_breaks_a_route(admin: Program, app: Flask, what: str) -> None:
    for operation in list(OPERATIONS):
        if operation.method == "GET" or operation.rule == "/admin/token/<username>/revoke":
            continue
        path = _paths(operation.rule, "key").replace("/budgets/key/key", "/budgets/organisation/default")
        call = getattr(admin, operation.method.lower())
        for kind in ("application/json", "text/plain"):
            answer = call(path, data=BODIES[what], content_type=kind)
            assert answer.status_code < 500, (operation.method, path, answer.text)
            if answer.status_code >= 400:
                assert set(answer.get_json()["error"]) == {"code", "message", "field"}


@pytest.mark.parametrize("value", _each(PATHS))
def test_no_path_or_query_breaks_a_route(admin: Program, app: Flask, value: str) -> None:
    for operation in list(OPERATIONS):
        if operation.method != "GET":
            continue
        path = _paths(operation.rule, value)
        for query in (
            "",
            f"?page={value}&limit=5",
            f"?limit={value}",
            "?page=999999999999&limit=200",
            "?page=1000000&limit=200",
            "?page=-1",
            "?limit=201",
            "?limit=٣",
            f"?cursor={value}&search={value}&user={value}&status={value}&model={value}&role={value}",
            f"?from={value}&to=9999-12-31T23:59:59-23:59&object={value}&actor={value}",
            "?from=2026-11-21T08:00:00Z&to=2026-11-21",
        ):
            answer = admin.get(path + query)
            assert answer.status_code < 500, (path + query, answer.text)


def test_unknown_paths_and_methods_are_told_in_the_same_shape(admin: Program) -> None:
    for path, method, status in (
        ("/api/nothing", "get", 404),
        ("/api/keys", "put", 405),
        ("/admin/users/x/y", "get", 404),
    ):
        answer = getattr(admin, method)(path)
        assert answer.status_code == status
        assert set(answer.get_json()["error"]) == {"code", "message", "field"}


def test_a_body_that_is_too_large_is_413(admin: Program) -> None:
    answer = admin.post("/api/keys", data=b'{"name": "' + b"x" * 2_000_000 + b'"}')
    assert answer.status_code == 413
    answer = admin.post("/api/keys", data=b'{"name": "' + b"x" * 6_000_000 + b'"}')
    assert answer.status_code == 413
    answer = admin.post("/api/keys", data=BODIES["many values"])
    assert (answer.status_code, "20,000 values" in answer.text) == (413, True)
    assert admin.post("/api/keys", json={"name": "a", "note": "[{,}]" * 40}).status_code == 201


@pytest.mark.parametrize(
    ("status", "words"), [(400, "cut short"), (408, "in time"), (413, "too large"), (503, "on their way")]
)
def test_people_and_programs_are_told_why_a_body_was_not_taken(app: Flask, status: int, words: str) -> None:
    answer = app.test_client().post("/api/keys", json={"name": "a"}, environ_overrides={FAULT: status})
    assert answer.status_code == status
    assert words in answer.get_json()["error"]["message"]
    page = app.test_client().post("/sign-in", data={"username": "a"}, environ_overrides={FAULT: status})
    assert page.status_code == status
    assert words in read(page)
