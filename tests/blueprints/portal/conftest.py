"""The portal's world: the cold side with the doors a browser needs, and browsers that are signed in."""

from __future__ import annotations

import contextvars
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import event
from werkzeug.test import TestResponse

from app.blueprints.portal import keys as keys_page
from app.domain import catalog, identity, keys, sessions, subscriptions
from app.domain.person import Person
from app.extensions import db, transaction
from app.gateway.traffic import Traffic
from app.ledger.posting import post
from app.metering.usage import Attempt, UsageEvent
from app.runtime.ids import new_id
from config import Config
from tests.house import (  # noqa: F401
    People,
    app,
    configured,
    database_url,
    home,
    inside,
    make_model,
    migrated,
    once,
    people,
    quick_hashes,
    valkey_url,
    wire,
)
from tests.page import Page, read

assert keys_page  # the door is opened by the application; imported here so that a broken one fails by its own name


@pytest.fixture
def config(home: Path, valkey_url: str, database_url: str) -> Config:  # noqa: F811
    return configured(home, valkey_url, database_url, "portal,admin,public")


@pytest.fixture
def count_queries(inside: Flask) -> Iterator[Callable[[], int]]:  # noqa: F811
    """How many statements were run since it was last asked."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    def since() -> int:
        count = len(seen)
        seen.clear()
        return count

    event.listen(db.engine, "before_cursor_execute", note)
    yield since
    event.remove(db.engine, "before_cursor_execute", note)


class Browser:
    """A signed-in browser without scripts: it follows no redirect by itself. Its session is made directly, and its forms
    carry a token of that session; `page` names a page whose own token is to be sent instead."""

    def __init__(self, app: Flask, username: str) -> None:  # noqa: F811
        self.client: FlaskClient = app.test_client()
        self._csrf = os.urandom(20).hex()
        with app.app_context():
            begun = sessions.begin(identity.named(username).id, address="127.0.0.1", agent="tests")
            self._token = URLSafeTimedSerializer(str(app.secret_key), salt="wtf-csrf-token").dumps(self._csrf)
            db.session.remove()
        with self.client.session_transaction() as kept:
            kept.permanent = True
            kept[sessions.COOKIE_FIELD] = begun
            kept["csrf_token"] = self._csrf

    def get(self, path: str, *, fragment: bool = False, **arguments: Any) -> TestResponse:
        headers = {"HX-Request": "true", "HX-Request-Type": "partial"} if fragment else {}
        return self._ask(self.client.get, path, headers=headers, **arguments)

    def page(self, path: str, *, fragment: bool = False, status: int = 200, **arguments: Any) -> Page:
        """What stands there, to be read."""
        answer = self.get(path, fragment=fragment, **arguments)
        assert answer.status_code == status, path
        return read(answer)

    def post(self, path: str, *, page: str | None = None, **form: Any) -> TestResponse:
        token = self._token if page is None else token_of(self.get(page))
        return self._ask(self.client.post, path, data={"csrf_token": token, **form})

    def secret_page(self, answer: TestResponse) -> TestResponse:
        """The page that shows a secret once, to which the form's answer leads."""
        assert answer.status_code == 303, answer.text
        shown = self.get(answer.headers["Location"])
        assert (shown.status_code, shown.headers["Cache-Control"]) == (200, "no-store")
        return shown

    @staticmethod
    def _ask(method: Callable[..., TestResponse], path: str, **arguments: Any) -> TestResponse:
        """Asks outside of the test's own application context, whose `g` would remember who asked first."""
        return contextvars.Context().run(method, path, **{"buffered": True, **arguments})  # a stream within it, too


def token_of(answer: TestResponse) -> str:
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', answer.text)
    assert found, answer.text[:2000]
    return found[1]


@pytest.fixture
def signed_in(app: Flask, people: People) -> Callable[[str], Browser]:  # noqa: F811
    return lambda username: Browser(app, username)


@pytest.fixture
def small(people: People) -> catalog.Model:  # noqa: F811
    """An open model at $1 in and $2 out a million tokens."""
    return transaction(make_model, people.admin, "small")


@pytest.fixture
def guarded(people: People) -> catalog.Model:  # noqa: F811
    """A restricted model."""
    return transaction(make_model, people.admin, "lab/guarded", restricted=True)


def subscribe(person: Person, model: catalog.Model) -> str:
    """The id of an active subscription."""
    made, _ = transaction(subscriptions.request, person, model, by=person)
    return made.id


def make_key(person: Person, **values: Any) -> tuple[str, str]:
    """The id and the text of a key."""
    key, text = transaction(keys.create, person, by=person, **{"name": "app", **values})
    return key.id, text


def use(person: Person, of: catalog.Model, at_ms: int, *, key_id: str | None = None, **fields: Any) -> str:
    """Books one call of 1,000 tokens in and 500 out, and answers its request id."""
    base: dict[str, Any] = {
        "request_id": new_id(),
        "attempt": 1,
        "at_ms": at_ms,
        "person_id": person.id,
        "key_id": key_id,
        "model": of.name,
        "endpoint": "/v1/chat/completions",
        "api_type": "chat",
        "provider_id": of.deployments[0].provider_id,
        "deployment_id": of.deployments[0].id,
        "outcome": "ok",
        "status": 200,
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "cost_nano": 2_000_000,
        "price_id": of.price.id if of.price else None,
        "duration_ms": 420,
        "ttft_ms": 70,
        "stream": True,
        "attempts": (
            Attempt(deployment_id=of.deployments[0].id, provider_id=of.deployments[0].provider_id, duration_ms=400),
        ),
        **fields,
    }
    used = UsageEvent(**base)
    post([used])
    db.session.rollback()
    return used.request_id


def tell(wire: redis.Redis, deployment_id: str, *, failures: int = 0, answers: int = 0) -> None:
    """Attempts at a deployment as the gateway tells them: answers, then failures."""
    traffic = Traffic(wire.execute_command)
    for _ in range(answers):
        traffic.asked(deployment_id)
        traffic.succeeded(deployment_id)
    for _ in range(failures):
        traffic.asked(deployment_id)
        traffic.failed(deployment_id, "The upstream at 10.0.0.7 is broken.")
    traffic.tell()
