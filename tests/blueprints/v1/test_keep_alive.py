"""A stream that is silent gives signs of life, and an upstream's own are passed on; neither is part of the answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import CHAT, Stream, Upstream


def piece(text: str | None, reason: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice]}


@pytest.fixture
def quick(valkey, shared_upstream: Upstream) -> Iterator[Client]:
    """A gateway that gives a sign of life after a tenth of a second."""
    gate = Gate(valkey, CONFIG_GATEWAY_KEEP_ALIVE_S="0.1")
    try:
        gate.start()
        gate.begin()
        shared_upstream.reset()
        gate.provider("up", base_url=shared_upstream.url, timeout_s=1)
        gate.model("small", "up")
        yield Client(gate, gate.key())
    finally:
        gate.close()


def test_a_silence_is_bridged_by_comments_that_change_nothing_of_the_answer(
    quick: Client, shared_upstream: Upstream
) -> None:
    chunks = [piece("one "), piece("two"), piece(None, "stop")]
    shared_upstream.script(CHAT, Stream(chunks, delay_s=0.6))
    body = quick.chat(stream=True).body
    assert body.count(b": keep-alive\n\n") >= 3
    assert body.startswith(b"data: {")
    events = [event for event in body.split(b"\n\n") if event and not event.startswith(b":")]
    assert len(events) == 4 and events[-1] == b"data: [DONE]"


def test_an_upstreams_own_comments_are_passed_on_at_once_without_its_words(
    gate: Gate, upstream: Upstream, client: Client
) -> None:
    comment = b": served by gpu-7.cluster.local\n\n"
    upstream.script(CHAT, Stream([comment, piece("one "), comment, comment, piece("two"), piece(None, "stop")]))
    body = client.chat(stream=True).body
    assert body.count(b": keep-alive\n\n") == 2
    assert b"gpu-7" not in body


def test_a_silence_still_has_an_end(quick: Client, shared_upstream: Upstream) -> None:
    shared_upstream.script(CHAT, Stream([piece("one ")], hang_after=1))
    body = quick.chat(stream=True).body
    assert body.count(b": keep-alive\n\n") >= 2
    assert body.rstrip().endswith(b'"code":"upstream_cut"}}')
