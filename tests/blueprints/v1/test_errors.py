"""Every row of the error table, as a client sees it."""

from __future__ import annotations

import json

import pytest

from app.blueprints.v1 import OWN
from app.gateway.endpoints import ASKED, ENDPOINTS
from tests.blueprints.v1.conftest import Client
from tests.services.upstream import (
    CHAT,
    GARBAGE,
    INVALID_JSON,
    WRONG_TYPE,
    Answer,
    Hang,
    Raw,
    chat,
    failure,
)

INVALID = "invalid_request_error"


@pytest.mark.both_lanes
def test_without_a_key_every_path_is_401(gate):
    nobody = Client(gate, None)
    for path in ("/v1/models", "/v1/nothing", "/v1/key", "/v1"):
        assert nobody(path).error == (401, INVALID, None)
    assert nobody.chat().error == (401, INVALID, None)


@pytest.mark.both_lanes
@pytest.mark.parametrize(
    "key", ["sk-nonsense", "nonsense", "sk-" + "a" * 46, "x" * 5000, "ключ".encode().decode("latin-1")]
)
def test_a_key_that_is_not_one_is_401_invalid_api_key(gate, key):
    assert Client(gate, key)("/v1/models").error == (401, INVALID, "invalid_api_key")


def test_an_expired_key_is_401(gate):
    assert Client(gate, gate.key(expires_ms=1))("/v1/models").error == (401, INVALID, "invalid_api_key")


@pytest.mark.both_lanes
def test_unknown_paths_and_wrong_methods_are_told_after_the_key(client):
    assert client("/v1/nothing").error == (404, INVALID, None)
    assert client("/v1/chat/completions").error == (405, INVALID, None)
    assert client("/v1/models", {}, "DELETE").error == (405, INVALID, None)
    assert client("/v1/models/small", method="DELETE").error == (405, INVALID, None)
    for method in ("GET", "POST", "DELETE"):
        stored = client("/v1/chat/completions/chatcmpl-1", method=method)
        assert stored.error == (404, INVALID, None)
        assert "Completions are not stored here." in stored.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"hello", None),
        (b"[]", None),
        (b'"text"', None),
        (b'{"model": "small"', None),
        (b'{"model": "small", "messages": [{"role": "user", "content": "\xff"}]}', None),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b'{"model": "small", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}', None),
        (b'{"model": "small", "messages": [{"role": "user", "content": "a"}], "x": 1e999}', None),
        (b'{"model": "small", "messages": [{"role": "user", "content": "a"}], "x": ' + b"9" * 6000 + b"}", None),
        (b'{"model": "small", "messages": [{"role": "user", "content": "a"}], "seed": 9223372036854775808}', "seed"),
        (b'{"model": "small", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
        (b'{"model": "small", "messages": [{"role": "user", "content": "a \\udc00 b"}]}', None),
        (b'{"model": "small", "model": "small", "messages": [{"role": "user", "content": "a"}]}', "model"),
        (b'{"model": "x", "mod\\u0065l": "small", "messages": []}', "model"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "model"),
        (b'{"model": "small"}', "messages"),
        (b'{"model": 5, "messages": []}', "model"),
        (b'{"model": "small", "messages": []}', "messages"),
        (b'{"model": "small", "messages": "hi"}', "messages"),
        (b'{"model": "small", "messages": [{"content": "a"}]}', "messages[0].role"),
        (b'{"model": "small", "messages": [{"role": "user", "content": 5}]}', "messages[0].content"),
        (b'{"model": "small", "messages": [{"role": "user", "content": [{"type": "text"}]}]}', "messages[0].content"),
        (b'{"model": "small", "messages": [{"role": "king", "content": "a"}]}', "messages[0].role"),
        *((b'{"model": "small", "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": [%s]}]}' % part,
           f"messages[1].content[{place}") for part, place in (
            (b"5", "0]"), (b'"a"', "0]"), (b"null", "0]"), (b"{}", "0].type"), (b'{"type": 5}', "0].type"),
            (b'{"type": "of tomorrow"}, {"type": "text"}', "1].text"), (b'{"type": "text", "text": 5}', "0].text"),
            (b'{"type": "image_url"}', "0].image_url"), (b'{"type": "image_url", "image_url": {}}', "0].image_url.url"),
            (b'{"type": "video_url", "video_url": []}', "0].video_url"), (b'{"type": "refusal"}', "0].refusal"),
            (b'{"type": "audio_url", "audio_url": {"url": 5}}', "0].audio_url.url"),
            (b'{"type": "input_audio", "input_audio": {"data": "a"}}', "0].input_audio.format"),
            (b'{"type": "file", "file": "a"}', "0].file"),
        )),
    ],
)  # fmt: skip
def test_a_hostile_body_is_400_and_tells_what_is_wrong(client, upstream, body, param):
    reply = client("/v1/chat/completions", body)
    assert reply.error == (400, INVALID, None)
    assert param is None or (reply.param or "").startswith(param)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1), ("temperature", -0.1), ("temperature", "1"), ("top_p", 1.5), ("n", 0), ("n", 129),
        ("n", True), ("max_tokens", -1), ("max_tokens", 1.5), ("max_completion_tokens", -1), ("presence_penalty", 3),
        ("frequency_penalty", -2.5), ("top_logprobs", 21), ("stream", "yes"), ("stop", 5), ("tools", {}),
        ("tools", [{}]), ("tools", [{"type": "function"}]), ("tool_choice", "maybe"), ("logit_bias", [1]),
        ("response_format", "json"), ("response_format", {}), ("response_format", {"type": 5}), ("seed", 1.5), ("user", 5),
        ("stop", ["a"] * 5), ("stop", [1]), ("logit_bias", {"5": 101}), ("logit_bias", {"5": "1"}), ("metadata", "a"),
        ("metadata", {"a": 1}), ("metadata", {str(n): "a" for n in range(17)}), ("metadata", {"a" * 65: "a"}),
        ("metadata", {"a": "a" * 513}), ("modalities", "text"), ("modalities", ["smell"]), ("store", "yes"),
        ("audio", "mp3"), ("prediction", "a"), ("reasoning_effort", 5), ("verbosity", 1), ("service_tier", True),
        ("safety_identifier", "a" * 65), ("functions", [{}] * 129), ("function_call", 5), ("stream_options", 5),
        ("api_base", "http://x"), ("base_url", "http://x"), ("api_key", "k"), ("api_version", "1"),
        ("extra_headers", {}), ("provider", 5), ("fallback_providers", "up"),
    ],
)  # fmt: skip
def test_a_field_outside_its_type_or_range_is_400_and_named(client, field, value):
    reply = client.chat(**{field: value})
    assert reply.error == (400, INVALID, None)
    assert reply.param.startswith(field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0), ("max_completion_tokens", 0), ("stop", ["a"] * 4), ("stop", []), ("logit_bias", {"foo": -100}),
        ("metadata", {str(n): "a" * 512 for n in range(16)}), ("store", True), ("service_tier", "auto"),
        ("response_format", {"type": "of_next_year"}), ("tools", [{"type": "of_next_year"}]), ("top_logprobs", 0),
        ("reasoning_effort", "of_next_year"), ("stream_options", {"include_usage": True}), ("seed", -(2**53) + 1),
        ("user", None), ("metadata", None), ("modalities", ["text"]), ("n", 128), ("temperature", 2),
        ("tool_choice", {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}),
    ],
)  # fmt: skip
def test_what_the_published_schema_allows_or_does_not_know_goes_up(client, upstream, field, value):
    assert client.chat(**{field: value}).status == 200
    if not field.startswith("max_"):
        assert upstream.last.json[field] == value


def test_a_limit_of_nothing_goes_up_as_one_token(client, upstream):
    assert client.chat(max_completion_tokens=0).status == 200
    assert upstream.last.json["max_tokens"] == 1


@pytest.mark.parametrize(
    "given", [None, "", [], {}, 5, [""], [[]], ["a", 1], [["a"]], [[1], "a"], [True], ["a"] * 2049]
)
def test_what_cannot_be_embedded_is_400(client, given):
    reply = client("/v1/embeddings", {"model": "small", "input": given})
    assert reply.error == (400, INVALID, None)
    assert reply.param.startswith("input")


@pytest.mark.both_lanes
def test_a_model_unknown_and_a_model_not_allowed_look_the_same(gate, client):
    gate.model("secret", "up")
    gate.model("off", "up", status="disabled")
    allowed = Client(gate, gate.key("small", "off"))
    replies = [allowed.chat(model=name) for name in ("secret", "nowhere", "off")]
    assert {reply.error for reply in replies} == {(404, INVALID, "model_not_found")}
    assert replies[0].json["error"]["message"].replace("secret", "nowhere") == replies[1].json["error"]["message"]


@pytest.mark.both_lanes
def test_a_body_that_is_too_large_is_413_declared_or_chunked(gate, key):
    import http.client

    limit = gate.config.server.max_body_mb << 20
    declared = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=30)
    declared.putrequest("POST", "/v1/chat/completions")
    declared.putheader("Authorization", f"Bearer {key}")
    declared.putheader("Content-Length", str(limit + 1))
    declared.endheaders()
    assert declared.getresponse().status == 413
    chunked = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=30)
    pieces = (b" " * (1 << 20) for _ in range(limit // (1 << 20) + 1))
    chunked.request("POST", "/v1/chat/completions", pieces, {"Authorization": f"Bearer {key}"}, encode_chunked=True)
    assert chunked.getresponse().status == 413


@pytest.mark.both_lanes
def test_a_body_shorter_than_it_was_declared_is_400(gate, key):
    import socket

    with socket.create_connection(("127.0.0.1", gate.port)) as raw:
        raw.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            'Content-Length: 500\r\n\r\n{"model":'.encode()
        )
        raw.shutdown(socket.SHUT_WR)
        assert b" 400 " in raw.makefile("rb").readline()


@pytest.mark.both_lanes
def test_an_endpoint_that_is_switched_off_is_503(gate, client):
    gate.endpoint("/v1/embeddings", active=False)
    fresh = Client(gate, gate.key())
    reply = fresh("/v1/embeddings", {"model": "small", "input": "a"})
    assert reply.error == (503, "service_unavailable_error", "endpoint_disabled")
    assert fresh.chat().status == 200


def test_switching_off_the_list_of_models_stops_every_path_of_it(gate):
    gate.endpoint("/v1/models", active=False)
    client = Client(gate, gate.key())
    for path in ("/v1/models", "/v1/models?provider=up", "/v1/models/small", "/v1/models/nothing"):
        assert client(path).error == (503, "service_unavailable_error", "endpoint_disabled")
    assert client("/v1/key").status == client.chat().status == 200


def test_every_path_of_the_table_is_served():
    assert {endpoint.path for endpoint in ENDPOINTS.values() if endpoint.capability} == set(ASKED)
    assert {endpoint.path for endpoint in ENDPOINTS.values() if endpoint.capability is None} < set(OWN)


def test_a_fixed_key_may_not_steer_and_a_free_one_may(gate, upstream):
    fixed = Client(gate, gate.key(routing="fixed"))
    assert fixed.chat(provider="up").error[0] == 403
    assert fixed.chat().status == 200
    free = Client(gate, gate.key())
    assert free.chat(provider="up").status == 200
    assert free.chat(provider="elsewhere").error == (400, INVALID, None)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_upstream_refuses_is_passed_on_without_addresses_and_secrets(client, upstream, status):
    told = f"Bad thing at {upstream.url}/x for key sk-abcdef123456 from 10.1.2.3:9000"
    upstream.script(CHAT, failure(status, told))
    reply = client.chat()
    assert reply.error == (status, INVALID, None)
    message = reply.json["error"]["message"]
    assert message.startswith("Bad thing")
    assert "127.0.0.1" not in message
    assert "sk-abc" not in message
    assert "10.1.2.3" not in message


@pytest.mark.both_lanes
@pytest.mark.parametrize(
    "behaviour",
    [
        failure(401), failure(403), failure(404), failure(500), failure(503), GARBAGE, INVALID_JSON, WRONG_TYPE,
        Raw(), Raw(reset=True), Answer({"choices": []}, cut_after=5),
    ],
    ids=lambda b: f"{type(b).__name__}-{getattr(b, 'status', '')}",
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_in_trouble_is_502_and_costs_nothing(gate, client, upstream, behaviour, stream):
    upstream.always(CHAT, behaviour)
    assert client.chat(stream=stream).error[:2] == (502, "upstream_error")
    assert gate.counted("organisation", "default") == (0, 0)
    (event,) = gate.events(1)
    assert (event.outcome, event.status, event.cost_nano) == ("error", 502, 0)


def test_an_upstream_that_refuses_connections_is_502(client, upstream):
    with upstream.refusing():
        assert client.chat().error[:2] == (502, "upstream_error")


@pytest.mark.both_lanes
def test_an_upstream_that_limits_is_429_with_its_own_wait(client, upstream):
    upstream.script(CHAT, failure(429, retry_after="9"))
    reply = client.chat()
    assert reply.error[:2] == (429, "upstream_error")
    assert reply.headers["Retry-After"] == "9"


@pytest.mark.both_lanes
def test_an_upstream_that_hangs_is_504(gate, client, upstream):
    gate.provider("up", base_url=upstream.url, timeout_s=1)
    upstream.script(CHAT, Hang())
    assert client.chat().error == (504, "upstream_error", "upstream_timeout")


@pytest.mark.both_lanes
def test_a_stream_that_fails_after_its_first_byte_ends_with_an_error_event(gate, client, upstream):
    upstream.script(CHAT, lambda body: chat(body, cut_after=3))
    reply = client.chat(stream=True)
    assert reply.status == 200
    *_, last = [line for line in reply.body.split(b"\n\n") if line]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_cut"
    assert b"[DONE]" not in reply.body
    (event,) = gate.events(1)
    assert (event.outcome, event.error_code) == ("error", "upstream_cut")
    assert event.completion_tokens == 2
    assert gate.counted("key", event.key_id) == (event.cost_nano, 0)


@pytest.mark.both_lanes
def test_a_stream_that_falls_silent_ends_with_an_error_event(gate, client, upstream):
    gate.provider("up", base_url=upstream.url, timeout_s=1)
    upstream.script(CHAT, lambda body: chat(body, hang_after=2))
    reply = client.chat(stream=True)
    assert b'"upstream_cut"' in reply.body


@pytest.mark.both_lanes
def test_every_answer_bears_a_request_id(gate, client):
    assert client.chat().headers["x-request-id"] == gate.events(1)[0].request_id
    for reply in (client("/v1/models"), client("/v1/nothing"), client.chat(n=0), Client(gate, None)("/v1/models")):
        assert len(reply.headers["x-request-id"]) == 36


@pytest.mark.both_lanes
def test_a_key_store_that_lost_its_noticeboard_is_503_and_never_401(gate, client):
    gate.redis.flushall()
    reply = Client(gate, gate.key())("/v1/models")
    assert reply.status == 503
    assert reply.headers["Retry-After"]


@pytest.mark.both_lanes
def test_a_closed_meter_is_503(gate, client):
    from app import store

    gate.redis.delete(store.METER)
    reply = client.chat()
    assert reply.status == 503
    assert reply.headers["Retry-After"]
