"""No input causes a 5xx: whatever JSON, and whatever is not JSON, is thrown at every route."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.blueprints.v1.conftest import Client
from tests.examples import examples

pytestmark = pytest.mark.slow

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["user", "small", ""])
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
known = st.sampled_from([
    "model", "messages", "input", "stream", "n", "tools", "tool_choice", "stop", "max_tokens", "temperature", "provider",
    "response_format", "stream_options", "logit_bias", "encoding_format", "dimensions", "functions", "user", "seed", "system",
    "thinking", "output_config", "metadata", "stop_sequences", "speed", "instructions", "text", "reasoning", "background",
    "conversation", "prompt", "previous_response_id", "include", "max_output_tokens",
])  # fmt: skip
messages = st.lists(st.fixed_dictionaries({"role": scalars, "content": values}) | values, max_size=3)
bodies = st.dictionaries(known, values | messages, max_size=8)
endpoints = pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"],
)
fuzz = settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def echo(gate) -> Client:
    return Client(gate, gate.key())


@endpoints
@fuzz
@given(body=bodies)
def test_any_json_is_answered_below_500(echo, path, body):
    reply = echo(path, json.dumps(body).encode())
    assert reply.status in (200, 400, 403, 404), reply.body


@endpoints
@fuzz
@given(body=bodies)
def test_any_change_of_a_good_request_is_answered_below_500(echo, path, body):
    good = {"model": "echo-1", "messages": [{"role": "user", "content": "one two"}], "input": "one two"}
    good |= {"max_tokens": 50} if path == "/v1/messages" else {}
    reply = echo(path, json.dumps(good | body).encode())
    assert reply.status in (200, 400, 403, 404), reply.body


@pytest.mark.both_lanes
@endpoints
@fuzz
@given(body=st.binary(max_size=300))
@example(body=b"\x00")
@example(body=b'{"model":')
@example(body=b"{}" * 1000)
def test_any_bytes_are_answered_400(echo, path, body):
    assert echo(path, body).status == 400


@pytest.mark.both_lanes
@fuzz
@given(path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
def test_any_path_is_answered_below_500(echo, path):
    assert echo(f"/v1/{path}").status < 500
