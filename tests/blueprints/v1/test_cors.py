"""Pages of other origins read answers of /v1 only if the operator names their origin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate

FRIEND, STRANGER = "https://app.example.com", "https://evil.example.com"


@pytest.fixture(scope="module")
def open_gate(valkey_server) -> Iterator[Gate]:
    gate = Gate(valkey_server.url, CONFIG_SERVER_CORS_ORIGINS=f"{FRIEND},http://localhost:3000")
    try:
        yield gate.start()
    finally:
        gate.close()


@pytest.fixture
def client(open_gate: Gate) -> Client:
    open_gate.begin()
    open_gate.provider("echo", kind="echo")
    open_gate.model("echo-1", "echo")
    return Client(open_gate, open_gate.key())


def test_a_page_of_an_allowed_origin_asks_before_and_reads_the_answer(client: Client) -> None:
    asked = {
        "Origin": FRIEND,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    before = client("/v1/chat/completions", None, "OPTIONS", **asked)
    assert before.status == 204
    assert before.headers["Access-Control-Allow-Origin"] == FRIEND
    assert before.headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
    assert before.headers["Access-Control-Allow-Headers"] == "authorization"
    assert before.headers["Vary"] == "Origin"
    messages = [{"role": "user", "content": "Hello"}]
    for stream in (False, True):
        answer = client(
            "/v1/chat/completions", {"model": "echo-1", "messages": messages, "stream": stream}, Origin=FRIEND
        )
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, FRIEND)
        assert "x-request-id" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("path", ["/v1/key", "/key/info", "/api/v1/key"])
def test_a_page_may_read_the_meter_in_every_shape(client: Client, path: str) -> None:
    before = client(path, None, "OPTIONS", Origin=FRIEND, **{"Access-Control-Request-Headers": "authorization"})
    assert (before.status, before.headers["Access-Control-Allow-Origin"]) == (204, FRIEND)
    assert before.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    assert client(path, Origin=FRIEND).headers["Access-Control-Allow-Origin"] == FRIEND


def test_errors_can_be_read_too(client: Client) -> None:
    for path in ("/v1/chat/completions", "/v1/nowhere"):
        assert client(path, b"{", Origin=FRIEND).headers["Access-Control-Allow-Origin"] == FRIEND


@pytest.mark.parametrize(
    "origin", [STRANGER, f"{FRIEND}.evil.example.com", "null", FRIEND.upper(), "http://app.example.com"]
)
def test_nobody_else_is_let_read(client: Client, origin: str) -> None:
    for method in ("OPTIONS", "GET"):
        answer = client("/v1/models", None, method, Origin=origin)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_without_a_setting_no_origin_is_allowed(gate: Gate) -> None:
    answer = Client(gate, gate.key())("/v1/models", None, "OPTIONS", Origin=FRIEND)
    assert "Access-Control-Allow-Origin" not in answer.headers
