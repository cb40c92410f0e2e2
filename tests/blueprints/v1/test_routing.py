"""Fallback before the first byte, never after it; and an upstream that is let go when the client goes."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.upstream import CHAT, Hang, chat, failure


@pytest.fixture
def spare(gate, make_upstream):
    """A second upstream for the model `safe`, tried after the first."""
    second = make_upstream()
    gate.provider("spare", base_url=second.url)
    gate.model("safe", "up", "spare")
    return second


@pytest.mark.parametrize(
    "trouble", [failure(500), failure(429), failure(401), failure(404), Hang()], ids=lambda t: str(t)[:30]
)
@pytest.mark.parametrize("stream", [False, True])
def test_trouble_before_the_first_byte_moves_on_and_is_charged_once(gate, upstream, spare, trouble, stream):
    upstream.script(CHAT, trouble)
    if isinstance(trouble, Hang):
        gate.provider("up", base_url=upstream.url, timeout_s=1)
    client = Client(gate, gate.key())
    assert client.chat(model="safe", stream=stream).status == 200
    (event,) = gate.events(1)
    assert (event.provider_id, event.attempt, event.outcome) == ("provider-spare", 2, "ok")
    assert [attempt.error is None for attempt in event.attempts] == [False, True]
    assert gate.counted("organisation", "default") == (event.cost_nano, 0)


def test_a_request_that_the_upstream_judged_bad_is_not_tried_elsewhere(gate, upstream, spare):
    upstream.script(CHAT, failure(400))
    assert Client(gate, gate.key()).chat(model="safe").status == 400
    assert spare.requests == []


@pytest.mark.both_lanes
def test_after_the_first_byte_there_is_no_fallback(gate, upstream, spare):
    upstream.script(CHAT, lambda body: chat(body, cut_after=2))
    assert b"upstream_cut" in Client(gate, gate.key()).chat(model="safe", stream=True).body
    assert spare.requests == []


def test_a_caller_may_choose_among_the_models_own_providers(gate, upstream, spare):
    client = Client(gate, gate.key())
    client.chat(model="safe", provider="spare")
    assert (len(upstream.requests), len(spare.requests)) == (0, 1)
    with spare.refusing():
        assert client.chat(model="safe", provider="spare").status == 502
        assert client.chat(model="safe", provider="spare", fallback_providers=["up"]).status == 200


def test_a_kept_connection_that_went_stale_is_not_an_error(gate, upstream):
    client = Client(gate, gate.key())
    assert client.chat().status == 200
    upstream.close_connections()
    assert client.chat().status == 200


def test_connections_are_kept_alive(gate, upstream):
    client = Client(gate, gate.key())
    for _ in range(3):
        client.chat()
        client.chat(stream=True)
    assert len({exchange.connection for exchange in upstream.requests}) == 1


def begin(gate, key: str, body: dict) -> socket.socket:
    """A request on a bare socket, so that it can be hung up at any moment."""
    raw = socket.create_connection(("127.0.0.1", gate.port))
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(data)}"
    )
    raw.sendall(head.encode() + b"\r\n\r\n" + data)
    return raw


BODY = {"model": "small", "messages": [{"role": "user", "content": "one two three four five six seven eight"}]}


@pytest.mark.both_lanes
def test_a_client_that_leaves_a_stream_stops_the_upstream_and_pays_for_what_came(gate, upstream):
    upstream.script(CHAT, lambda body: chat(body, delay_s=0.3))
    said = {"messages": [{"role": "user", "content": "word " * 100}], "stream": True}  # half a minute long
    raw = begin(gate, gate.key(), BODY | said)
    seen = b""
    while seen.count(b"data: ") < 3:
        seen += raw.recv(4096)
    raw.close()
    upstream.wait_for_client_gone(upstream.last)
    (event,) = gate.events(1)
    assert event.outcome == "cancelled"
    assert 2 <= event.completion_tokens <= upstream.last.chunks_sent < 50
    assert event.cost_nano > 0
    assert gate.counted("organisation", "default") == (event.cost_nano, 0)


@pytest.mark.both_lanes
def test_a_client_that_leaves_while_nothing_comes_is_noticed_too(gate, upstream):
    upstream.script(CHAT, Hang())
    raw = begin(gate, gate.key(), BODY)
    upstream.wait_for_requests(1)
    left_at = time.monotonic()
    raw.close()
    assert upstream.wait_for_client_gone(upstream.last) - left_at < 30  # the silence itself is allowed a minute
    (event,) = gate.events(1)
    assert (event.outcome, event.status, event.cost_nano) == ("cancelled", 499, 0)


@pytest.mark.both_lanes
def test_a_provider_may_be_told_to_finish_for_a_client_that_left(gate, upstream):
    gate.provider("up", base_url=upstream.url, on_disconnect="drain")
    upstream.script(CHAT, lambda body: chat(body, delay_s=0.1))
    raw = begin(gate, gate.key(), BODY | {"stream": True})
    raw.recv(4096)
    raw.close()
    (event,) = gate.events(1)
    assert (event.outcome, event.completion_tokens, event.estimated) == ("cancelled", 8, False)
    assert upstream.last.client_gone_at is None


@pytest.mark.both_lanes
def test_a_connection_serves_one_request_after_another(gate, key):
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=60)
    for stream in (False, True, False):
        body = json.dumps(BODY | {"stream": stream})
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read()


def test_a_model_is_called_by_another_name_and_answers_with_its_own(gate, upstream):
    gate.model("small", "up", aliases=("gpt-4", "lab/tiny"))
    client = Client(gate, gate.key())
    for name in ("gpt-4", "lab/tiny"):
        assert client.chat(model=name).json["model"] == "small"
        assert client(f"/v1/models/{name}").json["id"] == "small"
    assert [event.model for event in gate.events(2)] == ["small", "small"]
    assert "gpt-4" not in [model["id"] for model in client("/v1/models").json["data"]]
    assert Client(gate, gate.key("echo-1")).chat(model="gpt-4").error == (
        404,
        "invalid_request_error",
        "model_not_found",
    )
