"""The door of /v1 as clients come to it: with credentials in several places, bodies that are packed, and paths that are
not quite right. The busiest paths are asked through the lane and through Flask."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from typing import Any

import pytest
from backports import zstd

from tests.blueprints.v1.conftest import Client, Reply
from tests.services.gate import Gate
from tests.services.packed import gzip_blanks

pytestmark = pytest.mark.both_lanes

INVALID = "invalid_request_error"
PATH = "/v1/chat/completions"
WORDS = {"model": "small", "messages": [{"role": "user", "content": "one two three"}]}
BODY = json.dumps(WORDS).encode()


@pytest.fixture
def nobody(gate: Gate) -> Client:
    return Client(gate, None)


# --- credentials ---


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {key}"},
        {"Authorization": "bearer   {key} "},
        {"X-Api-Key": "{key}"},
        {"x-api-key": " {key} ", "Authorization": "Bearer "},
        {"x-api-key": "{key}", "Authorization": "Bearer"},
        {"x-api-key": "{key}", "Authorization": ""},
        {"x-api-key": "{key}", "Authorization": "Basic dTpw"},
        {"x-api-key": "", "Authorization": "Bearer {key}"},
        {"x-api-key": "sk-another", "Authorization": "Bearer {key}"},
    ],
)
def test_a_credential_is_found_wherever_it_stands(nobody: Client, key: str, headers: dict[str, str]) -> None:
    sent = {name: value.format(key=key) for name, value in headers.items()}
    assert nobody(PATH, WORDS, None, **sent).status == 200
    assert nobody("/v1/models", None, None, **sent).status == 200


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"x-api-key": "  ", "Authorization": "Bearer  "}])
def test_an_empty_credential_is_none(nobody: Client, headers: dict[str, str]) -> None:
    for reply in (nobody(PATH, WORDS, None, **headers), nobody("/v1/models", None, None, **headers)):
        assert reply.error == (401, INVALID, None)


def test_a_wrong_credential_is_refused_wherever_it_stands(nobody: Client) -> None:
    for path, body in ((PATH, WORDS), ("/v1/models", None)):
        assert nobody(path, body, None, **{"x-api-key": "sk-nonsense"}).error == (401, INVALID, "invalid_api_key")


# --- packed bodies ---


def packed(client: Client, body: bytes, encoding: str, path: str = PATH) -> Reply:
    return client(path, body, None, **{"Content-Encoding": encoding})


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)), ("GZip ", gzip.compress(BODY)), ("x-gzip", gzip.compress(BODY)),
        ("zstd", zstd.compress(BODY)), ("ZSTD", zstd.compress(BODY, 19)), ("identity", BODY), ("", BODY),
    ],
)  # fmt: skip
def test_a_packed_body_is_served_like_any_other(client: Client, encoding: str, body: bytes) -> None:
    reply = packed(client, body, encoding)
    assert reply.status == 200 and reply.json["object"] == "chat.completion"


def test_a_packed_body_may_come_in_chunks(gate: Gate, key: str) -> None:
    body = zstd.compress(BODY)
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Encoding: zstd\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert raw(gate, head.encode() + pieces).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", BODY), ("gzip", b""), ("gzip", gzip.compress(BODY)[:-1]), ("gzip", gzip.compress(BODY) + b"x"),
        ("gzip", zlib.compress(BODY)), ("gzip", zstd.compress(BODY)), ("gzip", gzip.compress(b"{") * 2),
        ("zstd", BODY), ("zstd", b""), ("zstd", zstd.compress(BODY)[:-1]), ("zstd", zstd.compress(BODY) + b"x"),
        ("zstd", gzip.compress(BODY)), ("zstd", b"\x28\xb5\x2f\xfd" + b"\xff" * 40),
    ],
)  # fmt: skip
def test_what_cannot_be_unpacked_is_400_naming_the_encoding(client: Client, encoding: str, body: bytes) -> None:
    reply = packed(client, body, encoding)
    assert reply.error == (400, INVALID, None)
    assert f"content encoding, {encoding}" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    "encoding", ["br", "deflate", "compress", "gzip, gzip", "gzip,zstd", "aws-chunked", "x" * 5000]
)
def test_other_encodings_are_415_and_name_those_that_are_taken(client: Client, encoding: str) -> None:
    reply = packed(client, gzip.compress(BODY), encoding)
    assert reply.error == (415, INVALID, None)
    assert reply.headers["Accept-Encoding"] == "gzip, zstd"
    assert encoding[:40] in reply.json["error"]["message"] and len(reply.body) < 500


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_that_unpacks_beyond_the_limit_is_413(gate: Gate, client: Client, encoding: str) -> None:
    limit = gate.config.server.max_body_mb << 20
    for size in (limit + 1, 20 * limit):
        body = gzip_blanks(size) if encoding == "gzip" else zstd.compress(b" " * size)
        assert len(body) < limit
        assert packed(client, body, encoding).error == (413, INVALID, None)
    assert client.chat().status == 200


def test_a_packed_body_within_the_limit_is_as_good_as_it_is_long(gate: Gate, client: Client) -> None:
    limit = gate.config.server.max_body_mb << 20
    assert packed(client, gzip.compress(BODY + b" " * (limit - len(BODY))), "gzip").status == 200


# --- paths and methods ---


def raw(gate: Gate, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65_536), b""))


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
