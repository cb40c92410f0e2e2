"""What a request brings is read before anybody is asked: bodies that are packed, whole or in chunks, up to a limit."""

from __future__ import annotations

import gzip
import json
import zlib
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from app.blueprints.v1.handle import handle, read_body
from app.blueprints.v1.http import Answer, Request
from app.directory import CallerRecord
from app.gateway.endpoints import CHAT, TRANSCRIPTIONS, Endpoint
from app.gateway.errors import ApiError, bad_key, no_key, unknown_model
from app.gateway.redis_wire import RedisAway
from app.gateway.runtime import Runtime
from app.runtime.forms import Form
from config import Config, Server
from tests.blueprints.v1.conftest import Client, Reply, raw
from tests.gateway.dialects.calls import CALLER
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


# --- by itself ---


class Process:
    """A gateway that knows `CALLER`, or refuses with `trouble`; `noted` is what was written down of refusals."""

    def __init__(self, trouble: Exception | None = None, version: str | None = "1", stale: bool = False) -> None:
        self.trouble, self.stale = trouble, stale
        self.noted: list[tuple[Any, ...]] = []
        self.access = SimpleNamespace(caller=self.caller, directory_version="1")
        self.routes = SimpleNamespace(refresh=self.refresh, version=version)
        self.denials = SimpleNamespace(
            model=lambda caller, name: self.noted.append(("model", caller.id, name)),
            key=lambda text: self.noted.append(("key", text)),
            no_key=lambda: self.noted.append(("no key",)),
        )
        self.last_calls = SimpleNamespace(
            refused=lambda caller, agent, id, error: self.noted.append(("refused", caller.id, error.status))
        )
        self.refused_calls = SimpleNamespace(
            note=lambda caller, id, endpoint, error, call: self.noted.append(("row", caller.id, error.status)),
            nobody=lambda endpoint, error: self.noted.append(("counted", error.code)),
        )
        self.config = Config(server=Server(max_body_mb=1, body_timeout_s=1))

    def caller(self, text: str) -> CallerRecord:
        if self.trouble is not None:
            raise self.trouble
        return CALLER

    def refresh(self, version: str) -> None:
        if self.stale:
            raise RedisAway("x")

    def request(self, body: Any = b"{}", endpoint: Endpoint = CHAT, **fields: Any) -> Request:
        length = fields.pop("length", len(body) if isinstance(body, bytes) else None)
        return Request(
            cast(Runtime, self), endpoint.path, endpoint=endpoint, length=length, body=body, socket=None, **fields
        )


def view(request: Request, caller: CallerRecord) -> Answer:
    return Answer(200, {}, caller.id.encode())


def test_a_view_has_the_callers_record_though_redis_is_away_meanwhile() -> None:
    for process in (Process(), Process(stale=True)):
        assert handle(process.request(), view) == (200, {}, b"k")


def test_before_the_directory_was_ever_read_there_is_nothing_to_serve() -> None:
    answer = handle(Process(version=None).request(), view)
    assert answer.status == 503 and answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("trouble", "noted"),
    [
        (no_key(), [("no key",), ("counted", None)]),
        (bad_key(), [("key", "sk-x"), ("counted", "invalid_api_key")]),
        (bad_key(CALLER), [("key", "sk-x"), ("row", "k", 401)]),
        (ApiError(503, "x", None, "x"), []),
    ],
)
def test_a_refused_key_is_written_down_and_trouble_inside_is_not_blamed_on_it(trouble: ApiError, noted: Any) -> None:
    process = Process(trouble)
    answer = handle(process.request(authorization="Bearer sk-x"), view)
    assert answer.status == trouble.status
    assert process.noted == noted
    assert (answer.headers.get("x-should-retry") == "false") is (trouble.status == 401)


def test_a_denied_model_is_written_down_with_who_asked() -> None:
    process = Process()

    def denied(request: Request, caller: CallerRecord) -> Answer:
        raise unknown_model("secret-model", "https://portal.example/models", 404)

    assert handle(process.request(), denied).status == 404
    assert process.noted == [("refused", "k", 404), ("model", "k", "secret-model"), ("row", "k", 404)]


def test_a_fault_of_the_gateways_own_is_told_without_its_words() -> None:
    def broken(request: Request, caller: CallerRecord) -> Answer:
        raise ZeroDivisionError("the password is 5")

    request = Process().request()
    answer = handle(request, broken)
    assert answer.status == 500 and b"password" not in cast(bytes, answer.body)
    assert json.loads(cast(bytes, answer.body))["error"]["code"] == "internal_error"
    assert answer.headers["x-request-id"] == request.id


@pytest.mark.parametrize("is_read", [False, True])
def test_a_refusal_closes_the_connection_unless_all_of_the_request_was_read(is_read: bool) -> None:
    request = Process(no_key()).request()
    request.is_read = is_read
    assert ("Connection" in handle(request, view).headers) is not is_read


@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "zstd"]), st.booleans())
def test_a_body_is_read_whole_however_it_comes(body: bytes, encoding: str, is_here: bool) -> None:
    sent = gzip.compress(body) if encoding == "gzip" else zstd.compress(body) if encoding else body
    request = Process().request(sent if is_here else BytesIO(sent), content_encoding=encoding, length=len(sent))
    assert read_body(request) == body and request.is_read


def test_a_body_that_is_cut_short_is_not_read() -> None:
    request = Process().request(BytesIO(b"{"), length=500)
    with pytest.raises(ApiError) as refused:
        read_body(request)
    assert refused.value.status == 400 and not request.is_read


FORM = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmall\r\n--x--\r\n'


@pytest.mark.parametrize("after", [b"", b"epilogue" * 10_000])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_form_is_read_to_its_end_and_what_follows_it_is_no_other_request(encoding: str, after: bytes) -> None:
    sent = gzip.compress(FORM + after) if encoding else FORM + after
    body = BytesIO(sent)
    request = Process().request(
        body,
        TRANSCRIPTIONS,
        content_type="multipart/form-data; boundary=x",
        content_encoding=encoding,
        length=len(sent),
    )
    form = read_body(request)
    assert isinstance(form, Form) and form.fields == [("model", "small")]
    form.close()
    assert request.is_read and body.read() == b""


def test_what_is_no_form_is_refused_where_one_is_taken() -> None:
    for kind, sent in (("application/json", b"{}"), ("multipart/form-data; boundary=x", FORM[:-9])):
        with pytest.raises(ApiError) as refused:
            read_body(Process().request(BytesIO(sent), TRANSCRIPTIONS, content_type=kind, length=len(sent)))
        assert refused.value.status == 400
