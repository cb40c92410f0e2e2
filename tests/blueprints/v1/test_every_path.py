"""Every path of /v1 that a model answers: an upstream that misbehaves is a clean failure, free, in time and without a secret."""

from __future__ import annotations

import json
import re
import time
from contextlib import nullcontext
from typing import Any, get_args

import pytest

from app.directory import Capability
from app.gateway.endpoints import ASKED
from tests.blueprints.v1.conftest import Client, Reply
from tests.services.gate import Gate
from tests.services.packed import gzip_blanks
from tests.services.sounds import wav
from tests.services.upstream import GARBAGE, INVALID_JSON, WRONG_TYPE, Answer, Hang, Raw, Stream, Upstream, failure

SECRET = "sk-upstream-0123456789abcdef"
FIELDS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/responses": {"input": "Hello"},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
    "/v1/audio/transcriptions": {"language": "en"},
    "/v1/audio/translations": {"prompt": "Hello"},
    "/v1/audio/speech": {"input": "Hello", "voice": "alloy"},
    "/v1/images/generations": {"prompt": "A boat"},
    "/v1/images/edits": {"prompt": "A boat"},
    "/v1/images/variations": {"n": "1"},
    "/v1/rerank": {"query": "What is red?", "documents": ["A boat"]},
}
PATHS = {"/v1/responses": "/v1/chat/completions"}  # where this upstream is asked for them
# What comes of it, by name: an upstream's behaviour, and the status that the client gets.
BEHAVIOURS: dict[str, tuple[Any, int]] = {
    "no HTTP": (GARBAGE, 502), "reset": (Raw(reset=True), 502), "HTML": (WRONG_TYPE, 502), "cut": (INVALID_JSON, 502),
    "silence": (Hang(), 504), "silence within": (Stream([], hang_after=0, content_type="application/octet-stream"), 504),
    "busy": (failure(429, retry_after="-5"), 429), "busy for ever": (failure(429, retry_after="1e99"), 429),
    "busy until soon": (failure(429, retry_after="soon"), 429), "down": (failure(503), 502),
    "no key": (failure(401, f"Incorrect API key: {SECRET}"), 502),
    "an error": (Answer({"error": {"message": f"no room at 10.1.2.3:8000 for {SECRET}"}}), 502),
    "elsewhere": (Answer({}, 302, {"Location": "http://127.0.0.1:1/secret"}), 502),
    "a bomb": (Answer(gzip_blanks(80 << 20), headers={"Content-Encoding": "gzip"}), 502),
    "refused": (None, 502),
}  # fmt: skip


@pytest.fixture
def gate(gate: Gate, upstream: Upstream) -> Gate:
    gate.provider("up", base_url=upstream.url, api_key=SECRET, timeout_s=1)
    gate.model("all", "up", capabilities=get_args(Capability))
    return gate


def ask(client: Client, path: str) -> Reply:
    fields = {"model": "all"} | FIELDS[path]
    if ASKED[path].body == "json":
        return client(path, fields)
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()]
    name = "image" if "images" in path else "file"
    parts.append(f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n')
    body = "".join(parts).encode() + wav(1) + b"\r\n--b--\r\n"
    return client(path, body, "POST", **{"Content-Type": "multipart/form-data; boundary=b"})


def test_each_path_is_asked_here() -> None:
    assert {path for path, one in ASKED.items() if one.dialect and one.dialect.startswith(("openai", "rerank"))} <= set(
        FIELDS
    )


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_failure_is_clean_free_and_in_time(
    gate: Gate, upstream: Upstream, client: Client, path: str, name: str
) -> None:
    behaviour, status = BEHAVIOURS[name]
    gate.limit("user", "person-1", "100")
    upstream.always(PATHS.get(path, path), behaviour)
    began = time.monotonic()
    with upstream.refusing() if behaviour is None else nullcontext():
        answer = ask(client, path)
    assert answer.status == status, answer.body
    assert time.monotonic() - began < 10
    assert not re.search(rf"{SECRET}|10\.1\.2\.3|127\.0\.0\.1|{upstream.port}|secret", json.dumps(answer.json))
    assert 1 <= int(answer.headers.get("retry-after") or 1) <= 3600
    (event,) = gate.events()
    assert (event.outcome, event.cost_nano, event.endpoint) == ("error", 0, path)
    assert gate.counted("user", "person-1") == (0, 0)
    assert all(request.path == PATHS.get(path, path) for request in upstream.requests)
