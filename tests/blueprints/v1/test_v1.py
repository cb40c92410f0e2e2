"""The door of /v1: which paths and methods there are, and what a client is told of those that there are not. The busiest
paths are asked through the lane and through Flask."""

from __future__ import annotations

from typing import Any

import pytest

from tests.blueprints.v1.conftest import Client, raw
from tests.services.gate import Gate

pytestmark = pytest.mark.both_lanes

INVALID = "invalid_request_error"
PATH = "/v1/chat/completions"
WORDS = {"model": "small", "messages": [{"role": "user", "content": "one two three"}]}


@pytest.fixture
def nobody(gate: Gate) -> Client:
    return Client(gate, None)


PATHS = [
    "/v1",
    "/v1/",
    PATH,
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/a/b",
    "/v1/key",
    "/v1/nothing",
    "/v1/v1/models",
]


@pytest.mark.parametrize("path", PATHS)
def test_options_needs_no_key_and_tells_the_methods(nobody: Client, path: str) -> None:
    reply = nobody(path, None, "OPTIONS", Origin="https://elsewhere.example")
    assert (reply.status, reply.body, reply.headers["Content-Type"]) == (204, b"", None)
    methods = {PATH: "OPTIONS, POST", "/v1/embeddings": "OPTIONS, POST"}
    if path in ("/v1/models", "/v1/models/a/b", "/v1/key"):
        methods[path] = "GET, HEAD, OPTIONS"
    assert reply.headers["Allow"] == methods.get(path, "OPTIONS")
    assert not [name for name in reply.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("//v1/chat/completions", PATH), ("//v1/models", "/v1/models"), ("///v1", None), ("/v1//chat/completions", PATH),
        ("/v1/v1/chat/completions", PATH), ("/v1/chat/completions/", PATH), ("/v1/models/", "/v1/models"),
        ("/v1/", None), ("/chat/completions", PATH), ("/embeddings", "/v1/embeddings"), ("/responses", None),
        ("/models", "/v1/models"), ("/audio/speech", None), ("/v1/nothing", None),
    ],
)  # fmt: skip
def test_a_path_that_is_not_there_is_404_in_json_and_named(
    client: Client, path: str, meant: str | None, method: str
) -> None:
    reply = client(path, WORDS if method == "POST" else None, method)
    assert reply.error == (404, INVALID, None)
    assert reply.headers["Content-Type"] == "application/json" and reply.headers["x-request-id"]
    message = reply.json["error"]["message"]
    assert f"{method} {path}." in message
    assert (f"Did you mean {meant}?" in message) is (meant is not None)


def test_below_v1_a_path_is_told_after_the_key_and_elsewhere_without(nobody: Client) -> None:
    for path in ("/v1/v1/models", "/v1/models/", "/v1//models"):
        assert nobody(path).error == (401, INVALID, None)
    for path in ("//v1/models", "/chat/completions"):
        assert nobody(path).error == (404, INVALID, None)


def test_a_long_path_is_not_repeated_at_length(client: Client) -> None:
    assert len(client("/v1/" + "x" * 5000).body) < 1000


@pytest.mark.parametrize(("path", "status"), [("/v1/models", 200), ("/v1/key", 200), (PATH, 405), ("/v1/nothing", 404)])
def test_head_answers_as_get_does_without_a_body(gate: Gate, key: str, path: str, status: int) -> None:
    request = f"HEAD {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    head, _, body = raw(gate, request.encode()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status) and body == b""


def test_a_wrong_method_tells_the_right_ones(client: Client) -> None:
    reply: Any = client(PATH, None, "PATCH")
    assert (reply.error, reply.headers["Allow"]) == ((405, INVALID, None), "OPTIONS, POST")
