"""A gateway with one upstream, `small` served by it and `echo` by the gateway itself."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.services.gate import Gate
from tests.services.upstream import Upstream


@pytest.fixture(scope="session", params=["lane", pytest.param("flask", marks=pytest.mark.slow)])
def gate_process(request: pytest.FixtureRequest, valkey_server) -> Iterator[Gate]:
    """The gateway with its busiest routes in the lane, and with everything served through Flask."""
    gate = Gate(valkey_server.url, CONFIG_SERVER_FAST_LANE=str(request.param == "lane").lower())
    try:
        yield gate.start()
    finally:
        gate.close()


@pytest.fixture
def gate(gate_process: Gate, shared_upstream: Upstream) -> Gate:
    shared_upstream.reset()
    gate_process.begin()
    gate_process.provider("up", base_url=shared_upstream.url)
    gate_process.provider("echo", kind="echo")
    gate_process.model("small", "up")
    gate_process.model("echo-1", "echo")
    return gate_process


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    """The upstream that `gate` knows as provider `up`."""
    return shared_upstream


class Reply:
    """A raw answer: what an SDK would hide."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str | None]:
        told = self.json["error"]
        assert set(told) == {"message", "type", "param", "code"}
        return self.status, told["type"], told["code"]

    @property
    def param(self) -> str | None:
        param: str | None = self.json["error"]["param"]
        return param


class Client:
    """HTTP without any library's opinion of what may be sent."""

    def __init__(self, gate: Gate, key: str | None) -> None:
        self.gate = gate
        self.key = key

    def __call__(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.gate.port, timeout=30)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.key}"} if self.key is not None else {}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, sent | headers)
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def chat(self, content: Any = "one two three", model: str = "small", **fields: Any) -> Reply:
        messages = [{"role": "user", "content": content}]
        return self("/v1/chat/completions", {"model": model, "messages": messages, **fields})


def raw(gate: Gate, request: bytes) -> bytes:
    """All that the gateway answers to these bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65_536), b""))


def key_id(key: str) -> str:
    """The id of a key that `gate.key()` made."""
    return f"key-{key[-6:]}"


@pytest.fixture
def key(gate: Gate) -> str:
    return gate.key()


@pytest.fixture
def client(gate: Gate, key: str) -> Client:
    return Client(gate, key)


@pytest.fixture
def sdk(gate: Gate, key: str) -> Iterator[openai.OpenAI]:
    """The official client, without retries of its own."""
    with openai.OpenAI(api_key=key, base_url=f"{gate.url}/v1", max_retries=0, timeout=30) as made:
        yield made
