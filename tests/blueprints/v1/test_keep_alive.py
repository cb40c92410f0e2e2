"""A stream that is silent gives signs of life, and an upstream's own are passed on; neither is part of the answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import CHAT, Answer, Hang, Stream, Upstream, chat
from tests.services.valkey import ValkeyServer


def piece(text: str | None, reason: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice]}


@pytest.fixture(scope="module")
def quick_gate(valkey_server: ValkeyServer) -> Iterator[Gate]:
    """A gateway that gives a sign of life after a tenth of a second, and begins a stream after a fifth."""
    gate = Gate(valkey_server.url, CONFIG_GATEWAY_KEEP_ALIVE_S="0.1", CONFIG_GATEWAY_COMMIT_AFTER_S="0.2")
    try:
        yield gate.start()
    finally:
        gate.close()


@pytest.fixture
def quick(quick_gate: Gate, shared_upstream: Upstream) -> Client:
    quick_gate.begin()
    shared_upstream.reset()
    quick_gate.provider("up", base_url=shared_upstream.url, timeout_s=1)
    quick_gate.model("small", "up")
    return Client(quick_gate, quick_gate.key())


def test_a_silence_is_bridged_by_comments_that_change_nothing_of_the_answer(
    quick: Client, shared_upstream: Upstream
) -> None:
    chunks = [piece("one "), piece("two"), piece(None, "stop")]
    shared_upstream.script(CHAT, Stream(chunks, delay_s=0.6))
    body = quick.chat(stream=True).body
    assert body.count(b": keep-alive\n\n") >= 3
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


def test_a_silence_before_the_first_byte_is_bridged_once_it_is_long(quick: Client, shared_upstream: Upstream) -> None:
    shared_upstream.script(CHAT, lambda body: chat(body, head_delay_s=0.6))
    answer = quick.chat(stream=True)
    assert answer.body.startswith(b": keep-alive\n\n: keep-alive\n\n")
    assert answer.body.replace(b": keep-alive\n\n", b"").startswith(b"data: {") and answer.body.endswith(b"[DONE]\n\n")
    (event,) = quick.gate.events()
    assert (event.outcome, event.completion_tokens) == ("ok", 3)


def test_another_deployment_is_still_asked_after_that(
    quick: Client, shared_upstream: Upstream, make_upstream: Callable[[], Upstream]
) -> None:
    quick.gate.provider("spare", base_url=make_upstream().url)
    quick.gate.model("safe", "up", "spare")
    quick.key = quick.gate.key()
    shared_upstream.script(CHAT, Hang())
    answer = quick.chat(model="safe", stream=True)
    assert answer.status == 200 and answer.body.startswith(b": keep-alive") and b"[DONE]" in answer.body
    (event,) = quick.gate.events()
    assert [attempt.error is None for attempt in event.attempts] == [False, True]


def test_what_fails_after_that_is_told_in_the_stream_and_free(quick: Client, shared_upstream: Upstream) -> None:
    shared_upstream.script(CHAT, Hang(), Answer({"error": {"message": "no such tool"}}, 400, delay_s=0.5))
    for words in (b"did not begin to answer within 1 s", b"no such tool"):
        quick.gate.provider("up", base_url=shared_upstream.url, timeout_s=1 if b"begin" in words else 2)  # mended
        answer = quick.chat(stream=True)
        assert answer.status == 200 and words in answer.body and b"upstream_cut" in answer.body
        assert b"[DONE]" not in answer.body
    told = [(event.outcome, event.status, event.error_code, event.cost_nano) for event in quick.gate.events(2)]
    assert told == [("error", 200, "upstream_timeout", 0), ("error", 200, "invalid_request_error", 0)]
    assert quick.gate.counted("organisation", "default") == (0, 0)


def test_a_message_is_bridged_too_and_what_is_no_stream_is_not(quick: Client, shared_upstream: Upstream) -> None:
    shared_upstream.always(CHAT, lambda body: chat(body, **{"head_delay_s" if body.get("stream") else "delay_s": 0.5}))
    asked = {"model": "small", "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}]}
    answer = quick("/v1/messages", asked | {"stream": True}).body
    assert answer.startswith(b": keep-alive\n\n") and b"event: message_stop" in answer
    assert quick("/v1/messages", asked).json["content"][0]["text"] == "one two"


def test_who_leaves_before_the_first_byte_ends_the_request(quick: Client, shared_upstream: Upstream) -> None:
    shared_upstream.script(CHAT, Hang())
    body = json.dumps({"model": "small", "stream": True, "messages": [{"role": "user", "content": "x"}]}).encode()
    with socket.create_connection(("127.0.0.1", quick.gate.port)) as sock:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {quick.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        while b"keep-alive\n" not in sock.recv(65_536):
            continue
    shared_upstream.wait_for_client_gone(shared_upstream.last)
    (event,) = quick.gate.events()
    assert (event.outcome, event.cost_nano) == ("cancelled", 0)
    assert quick.gate.counted("organisation", "default") == (0, 0)


def test_a_silence_still_has_an_end(quick: Client, shared_upstream: Upstream) -> None:
    shared_upstream.script(CHAT, Stream([piece("one ")], hang_after=1))
    body = quick.chat(stream=True).body
    assert body.count(b": keep-alive\n\n") >= 2
    assert body.rstrip().endswith(b'"code":"upstream_cut"}}')
