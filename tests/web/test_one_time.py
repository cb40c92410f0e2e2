"""A secret is shown once, to the session that created it, and stands in the clear nowhere."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
import redis
from flask import Flask, make_response, session

from app import current
from app.domain import sessions
from app.runtime.sealing import SealingError
from app.web import one_time
from tests.house import app, config, database_url, home, inside, migrated, quick_hashes, wire  # noqa: F401

ID, SECRET = "0193", "sk-a-secret"


def number(inside: Flask, sid: str = "ada's session") -> str:  # noqa: F811
    """The number in the address to which `show_once` leads."""
    with inside.test_request_context("/keys", method="POST"):
        session[sessions.COOKIE_FIELD] = sid
        answer = one_time.show_once(ID, SECRET, "/keys/0193/secret", lambda text: make_response(text))
    assert answer.status_code == 303
    return parse_qs(urlsplit(answer.headers["Location"]).query)[one_time.PARAMETER][0]


def taken(inside: Flask, number: str, *, sid: str = "ada's session", id: str = ID, method: str = "GET") -> str | None:  # noqa: F811
    with inside.test_request_context("/keys/0193/secret", query_string={one_time.PARAMETER: number}, method=method):
        session[sessions.COOKIE_FIELD] = sid
        return one_time.take(id)


def test_a_secret_is_taken_once(inside: Flask, wire: redis.Redis) -> None:  # noqa: F811
    one = number(inside)
    [name] = wire.scan_iter("shown-once:*")
    assert 0 < wire.ttl(name) <= one_time.KEPT_S
    assert SECRET not in str(wire.get(name))
    assert taken(inside, one, method="HEAD") is None
    assert [taken(inside, one), taken(inside, one)] == [SECRET, None]


def test_neither_the_deployments_keys_nor_another_session_open_it(inside: Flask, wire: redis.Redis) -> None:  # noqa: F811
    one = number(inside)
    [name] = wire.scan_iter("shown-once:*")
    with pytest.raises(SealingError, match="is not there"):
        current.sealer().open(str(wire.get(name)), str(name))
    assert taken(inside, one, sid="bob's session") is None


@pytest.mark.parametrize("odd", ["", "unknown", "x" * 5000, "\x00"])
def test_another_number_or_another_object_has_no_secret(inside: Flask, wire: redis.Redis, odd: str) -> None:  # noqa: F811
    one = number(inside)
    assert taken(inside, odd) is None
    assert taken(inside, one, id="0194") is None
    assert taken(inside, one) == SECRET


def test_without_redis_the_forms_answer_shows_it(inside: Flask, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def away() -> redis.Redis:
        raise redis.ConnectionError

    monkeypatch.setattr(current, "redis", away)
    with inside.test_request_context("/keys", method="POST"):
        session[sessions.COOKIE_FIELD] = "ada's session"
        answer = one_time.show_once(ID, SECRET, "/keys/0193/secret", lambda text: make_response(text))
    assert (answer.status_code, answer.get_data(as_text=True)) == (200, SECRET)
