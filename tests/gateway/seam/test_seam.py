"""The seam carries: a new dialect is one file and a row of the table, a new kind of provider is one file.

The dialect beside this file and the kind `line` of the tests know nothing of each other, nor of the application's own; each
meets them and the other. Calls are metered as all are.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from app import providers
from app.gateway import dialects
from app.gateway.endpoints import CHAT, MESSAGES, Endpoint
from app.gateway.errors import ApiError
from tests.gateway.conftest import Call
from tests.providers.more_kinds import more_kinds
from tests.services.gate import Gate
from tests.services.upstream import Upstream, chat, failure

HERE = Path(__file__).parent
WORDS = Endpoint("words", "/v1/words", "chat", "words")
LINES = [
    {"status": 200}, {"used": [4, 2]}, {"text": "Hello"}, {"text": " there"}, {"used": [4, 3]}, {"end": "stop"},
]  # fmt: skip


@pytest.fixture(autouse=True)
def more_of_both(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The dialect and the kind are found as those of the application are."""
    monkeypatch.setattr(dialects, "__path__", [*dialects.__path__, str(HERE / "dialects")])
    with more_kinds():
        yield


@pytest.fixture
def lines(gate: Gate) -> Iterator[list[dict[str, Any]]]:
    """What `odd` was asked: a model at an upstream that speaks lines."""
    asked: list[dict[str, Any]] = []

    def serve(sock: socket.socket, _: Any) -> None:
        asked.append(json.loads(sock.makefile("rb").readline()))
        for line in LINES:
            sock.sendall(json.dumps(line).encode() + b"\n")
            gevent.idle()

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    gate.provider("odd", "line", url=f"grpc://127.0.0.1:{server.server_port}")
    gate.model("odd", "odd", capabilities=("chat",))
    yield asked
    server.stop()


def question(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "ask": "one two", "at_most": 9, **more}


def message(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}], **more}


class TestANewDialect:
    def test_over_an_adapter_that_was_there(self, call: Call, gate: Gate, upstream: Upstream) -> None:
        answer = json.loads(call(WORDS, question("small")))
        assert (answer["model"], answer["said"]) == ("small", ["one two"])
        sent = upstream.requests[-1].json
        assert (sent["model"], sent["max_tokens"]) == ("small-up", 9)
        assert sent["messages"] == [{"role": "user", "content": "one two"}]
        (event,) = gate.events()
        assert event.cost_nano == event.prompt_tokens * 1000 + event.completion_tokens * 2000 and not event.estimated

    def test_streams(self, call: Call, gate: Gate) -> None:
        assert call(WORDS, question("small", stream=True)) == b"word one \nword two \nbecause stop\nthat was all\n"
        assert gate.events()[0].completion_tokens == 2

    def test_tells_a_cut_in_its_own_words(self, call: Call, upstream: Upstream) -> None:
        upstream.script("/v1/chat/completions", lambda request: chat(request, cut_after=2))
        assert call(WORDS, question("small", stream=True)).splitlines()[-1].startswith(b"cut: ")

    def test_tells_errors_in_its_own_words(self, call: Call, upstream: Upstream) -> None:
        upstream.script("/v1/chat/completions", failure(400, "too long"))
        with pytest.raises(ApiError) as refused:
            call(WORDS, question("small"))
        assert dialects.dialect("words").error(refused.value, "r1") == b"no (400): too long\n"


class TestANewKind:
    @pytest.mark.parametrize("stream", [False, True])
    def test_under_dialects_that_were_there(
        self, call: Call, gate: Gate, lines: list[dict[str, Any]], stream: bool
    ) -> None:
        for endpoint in (CHAT, MESSAGES):
            answer = call(endpoint, message("odd", stream=stream))
            assert b"Hello" in answer and b"there" in answer
        assert [asked["turns"][0]["parts"][0]["text"] for asked in lines] == ["one two", "one two"]
        assert {(event.prompt_tokens, event.completion_tokens) for event in gate.events()} == {(4, 3)}

    def test_under_a_new_dialect(self, call: Call, lines: list[dict[str, Any]]) -> None:
        assert json.loads(call(WORDS, question("odd")))["said"] == ["Hello there"]
        assert call(WORDS, question("odd", stream=True)) == b"word Hello\nword  there\nbecause stop\nthat was all\n"
        assert providers.adapter("line").__module__ == "app.providers.line"
