"""What a request brings is read before anybody is asked: bodies that are packed, whole or in chunks, up to a limit."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from backports import zstd

from tests.blueprints.v1.conftest import Client, Reply, raw
from tests.services.gate import Gate
from tests.services.packed import gzip_blanks

pytestmark = pytest.mark.both_lanes

INVALID = "invalid_request_error"
PATH = "/v1/chat/completions"
WORDS = {"model": "small", "messages": [{"role": "user", "content": "one two three"}]}
BODY = json.dumps(WORDS).encode()


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
