"""Bodies outside /v1 are read whole, within a bound and a deadline, before anything else is done for a request."""

from __future__ import annotations

import io
from typing import Any

import gevent
import pytest

from app import bodies
from app.bodies import FAULT, WholeBodies


class Slow:
    """A body of which one byte comes now and then."""

    def read(self, size: int, /) -> bytes:
        gevent.sleep(0.02)
        return b"x"


class Broken:
    def read(self, size: int, /) -> bytes:
        raise OSError("reset by peer")


def seen(body: Any, length: str | None, *, limit: int = 100, timeout_s: float = 5.0, **environ: str) -> dict[str, Any]:
    """The environment with which the application is called."""
    found: dict[str, Any] = {}

    def application(environ: Any, start_response: Any) -> list[bytes]:
        found.update(environ, body=environ["wsgi.input"].read(1000))
        return []

    asked: dict[str, Any] = {"wsgi.input": body, **environ}
    if length is not None:
        asked["CONTENT_LENGTH"] = length
    WholeBodies(application, limit, timeout_s)(asked, lambda *told: lambda data: None)
    return found


def test_a_body_is_there_whole_when_the_application_is_called() -> None:
    assert seen(io.BytesIO(b"hello, next request"), "5")["body"] == b"hello"
    assert FAULT not in seen(io.BytesIO(b""), "0")
    chunked = seen(io.BytesIO(b"hello"), None, HTTP_TRANSFER_ENCODING="chunked")
    assert (chunked["body"], chunked["CONTENT_LENGTH"]) == (b"hello", "5")
    assert "HTTP_TRANSFER_ENCODING" not in chunked


@pytest.mark.parametrize("length", ["1000", None])
def test_a_body_that_comes_too_slowly_is_given_up(length: str | None) -> None:
    found = seen(Slow(), length, limit=1000, timeout_s=0.1, HTTP_TRANSFER_ENCODING="" if length else "chunked")
    assert (found[FAULT], found["body"]) == (408, b"")


def test_a_body_that_is_cut_short_or_too_large_is_told() -> None:
    assert seen(io.BytesIO(b"half"), "8")[FAULT] == 400
    assert seen(Broken(), "8")[FAULT] == 400
    assert seen(io.BytesIO(b"x" * 101), "101")[FAULT] == 413
    assert seen(io.BytesIO(b"x" * 101), None, HTTP_TRANSFER_ENCODING="chunked")[FAULT] == 413


def test_a_form_has_a_bounded_number_of_fields() -> None:
    form = bodies.FORM + "; charset=utf-8"
    assert FAULT not in seen(io.BytesIO(b"a&" * 1999), "3998", limit=100_000, CONTENT_TYPE=form)
    assert seen(io.BytesIO(b"a&" * 2000), "4000", limit=100_000, CONTENT_TYPE=form)[FAULT] == 413


def test_bodies_that_are_on_their_way_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_HELD", 150)
    statuses: list[int | None] = []

    class Waiting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            gevent.sleep(0.01)
            return super().read(min(size or 0, 20))

    def application(environ: Any, start_response: Any) -> list[bytes]:
        statuses.append(environ.get(FAULT))
        return []

    whole = WholeBodies(application, 100, 5.0)

    def ask() -> None:
        whole({"wsgi.input": Waiting(b"x" * 100), "CONTENT_LENGTH": "100"}, lambda *told: lambda data: None)

    gevent.joinall([gevent.spawn(ask) for _ in range(3)], raise_error=True)
    assert 503 in statuses
    assert None in statuses
    ask()
    assert statuses[-1] is None  # nothing is counted that is not there any more
