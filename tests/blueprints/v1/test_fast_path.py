"""The lane in front of Flask: what it takes, what it leaves, and that a client can't tell the two ways apart."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any

import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate

pytestmark = pytest.mark.both_lanes

BODY = json.dumps({"model": "small", "messages": [{"role": "user", "content": "one two three"}]}).encode()
PATH = "/v1/chat/completions"


def raw(gate: Gate, request: bytes) -> bytes:
    """What a server answers to bytes, until it closes or has told an answer of known length."""
    with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as sock:
        sock.sendall(request)
        answer = http.client.HTTPResponse(sock, method="POST")
        answer.begin()
        return b"%d %s" % (answer.status, answer.read())


def head(gate: Gate, key: str, *lines: str, version: str = "1.1", path: str = PATH) -> bytes:
    told = [
        f"POST {path} HTTP/{version}",
        "Host: here",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
    ]
    return "\r\n".join([*told, *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "unusual",
    [{"version": "1.0"}, {"path": f"{PATH}?a=b"}, {"expect": True}, {"chunked": True}],
    ids=["an older HTTP", "a query", "Expect", "a chunked body"],
)
def test_what_is_unusual_is_served_all_the_same(gate: Gate, key: str, unusual: dict[str, Any]) -> None:
    lines = [] if unusual.get("chunked") else [f"Content-Length: {len(BODY)}"]
    body = BODY
    if unusual.get("chunked"):
        lines, body = ["Transfer-Encoding: chunked"], b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    if unusual.get("expect"):
        lines.append("Expect: 100-continue")
    request = head(gate, key, *lines, version=unusual.get("version", "1.1"), path=unusual.get("path", PATH))
    answer = raw(gate, request + body)
    assert answer.startswith(b"200 ") and b'"object"' in answer


def test_a_connection_serves_one_request_after_the_other(gate: Gate, key: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=60)
    bearer = {"Authorization": f"Bearer {key}"}
    for path, status in ((PATH, 200), ("/v1/models", 200), (PATH, 200), ("/healthz", 200)):
        connection.request("POST" if path == PATH else "GET", path, BODY if path == PATH else None, bearer)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (status, "keep-alive")
        answer.read()
    connection.close()


@pytest.mark.parametrize("cuts", ["together", "head first", "in the middle of a body"])
def test_requests_are_told_apart_however_they_arrive(gate: Gate, key: str, cuts: str) -> None:
    first = head(gate, key, f"Content-Length: {len(BODY)}")
    both = first + BODY + head(gate, key, f"Content-Length: {len(BODY)}", "Connection: close") + BODY
    at = {"together": len(both), "head first": len(first), "in the middle of a body": len(first) + 10}[cuts]
    with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as sock:
        sock.sendall(both[:at])
        if at < len(both):
            time.sleep(0.1)  # so that it is looked at before the rest is there
        sock.sendall(both[at:])
        answers = b"".join(iter(lambda: sock.recv(65_536), b""))
    assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b'"chat.completion"') == 2


def test_a_stream_ends_and_the_connection_goes_on(gate: Gate, key: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=60)
    streamed = json.dumps({**json.loads(BODY), "stream": True})
    for _ in range(2):
        connection.request("POST", PATH, streamed, {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert answer.read().endswith(b"data: [DONE]\n\n")
    connection.close()


def test_a_body_that_was_not_read_is_never_taken_for_the_next_request(gate: Gate) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=60)
    connection.request("POST", PATH, BODY, {"Authorization": "Bearer sk-unknown"})
    answer = connection.getresponse()
    assert answer.status == 401
    answer.read()
    if answer.headers["Connection"] != "close":  # then it was read after all
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
    connection.close()


def test_two_bearers_are_none(gate: Gate, key: str) -> None:
    request = head(gate, key, f"Authorization: Bearer {key}", f"Content-Length: {len(BODY)}") + BODY
    assert raw(gate, request).startswith((b"400 ", b"401 "))


def test_a_request_without_a_body_is_refused_and_never_waited_for(gate: Gate, key: str) -> None:
    assert raw(gate, head(gate, key)).startswith(b"400 ")


def test_what_the_gateway_tells_in_headers_is_there(gate: Gate) -> None:
    gate.limit("key", "key-a", rpm=100)
    reply = Client(gate, gate.key(id="key-a")).chat()
    assert reply.headers["x-ratelimit-limit-requests"] == "100"
    assert reply.headers["x-request-id"] and reply.headers["Date"]
    assert reply.headers["Content-Type"] == "application/json"
