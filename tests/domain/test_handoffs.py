"""What a browser carries over a redirect is sealed, is there for ten minutes, and is taken once."""

import msgspec
import pytest
import redis
from flask import Flask

from app import current
from app.domain import handoffs
from app.domain.errors import Unavailable


class Note(msgspec.Struct):
    text: str


class Other(msgspec.Struct):
    number: int


def test_a_value_is_read_until_it_is_taken(inside: Flask, wire: redis.Redis) -> None:
    token = handoffs.put(Note("a secret of the sign-in"))
    (name,) = wire.keys("handoff:*")
    assert token not in name
    assert "secret" not in str(wire.get(name))
    assert handoffs.get(token, Note) == Note("a secret of the sign-in")
    assert handoffs.take(token, Note) == Note("a secret of the sign-in")
    assert handoffs.take(token, Note) is None


@pytest.mark.parametrize("token", ["", "made-up", "ö", "x" * 10_000, "\0"])
def test_a_made_up_token_has_no_value(inside: Flask, token: str) -> None:
    assert handoffs.get(token, Note) is None


def test_a_value_of_another_kind_is_none(inside: Flask) -> None:
    assert handoffs.take(handoffs.put(Note("x")), Other) is None


def test_without_redis_nobody_can_sign_in(inside: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "redis", lambda: redis.Redis(port=1))
    for act in (lambda: handoffs.put(Note("x")), lambda: handoffs.take("x", Note)):
        with pytest.raises(Unavailable):
            act()
