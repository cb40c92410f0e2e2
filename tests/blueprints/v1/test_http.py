"""A request to /v1 as its client sent it: a credential stands in several places, and so does the name of a conversation."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import store
from app.blueprints.v1.http import Request
from app.gateway.endpoints import ASKED, Endpoint
from app.gateway.runtime import Runtime
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate

pytestmark = pytest.mark.both_lanes

INVALID = "invalid_request_error"
PATH = "/v1/chat/completions"
WORDS = {"model": "small", "messages": [{"role": "user", "content": "one two three"}]}


@pytest.fixture
def nobody(gate: Gate) -> Client:
    return Client(gate, None)


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


# --- a request by itself ---


def request(**fields: Any) -> Request:
    return Request(cast(Runtime, None), "/v1/x", length=0, body=b"", socket=None, **fields)


@given(st.text(max_size=20).map(str.strip), st.text(max_size=20).map(str.strip))
def test_a_bearer_comes_before_an_api_key_and_what_is_empty_is_none(bearer: str, api_key: str) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert request(authorization=f"{scheme} {bearer}", api_key=f" {api_key}").bearer == (bearer or api_key)
    assert request(authorization=f"Basic {bearer}", api_key=api_key).bearer == api_key


@pytest.mark.parametrize("endpoint", [None, *ASKED.values()], ids=lambda endpoint: endpoint.id if endpoint else "none")
def test_a_client_is_answered_in_its_own_dialect_and_else_in_that_of_most(endpoint: Endpoint | None) -> None:
    assert request(endpoint=endpoint).dialect.name == ("openai_chat" if endpoint is None else endpoint.dialect)


def test_each_request_has_an_id_of_its_own() -> None:
    assert len({request().id for _ in range(1000)}) == 1000


SAID = {
    "x-claude-code-session-id": "/home/ada/work", "x-claude-code-agent-id": "a1", "x-portico-tags": "alpha,beta",
    "User-Agent": "claude-cli/2.1 (external)",
}  # fmt: skip


def test_what_a_client_says_of_its_call_is_on_its_event_and_no_path_is(gate: Gate, key: str) -> None:
    client = Client(gate, key)
    assert client(PATH, WORDS, None, **SAID).status == 200
    assert client(PATH, WORDS | {"stream": True}, None, **SAID).status == 200
    assert client(PATH, WORDS, None).status == 200
    first, again, plain = gate.events(3)
    assert (first.agent, first.subagent_id, first.tags) == ("claude-code", "a1", ("alpha", "beta"))
    assert first.session_id is not None and first.session_id.startswith("~")
    assert (first.session_id, first.turn_id) == (again.session_id, again.turn_id)
    assert first.turn_id is not None
    assert (plain.session_id, plain.agent, plain.subagent_id, plain.turn_id, plain.tags) == (None, None, None, None, ())
    assert b"/home/ada" not in b"".join(fields[b"e"] for _, fields in gate.redis.xrange(store.USAGE))


def test_a_key_bears_no_tags_but_those_that_it_is_allowed(gate: Gate) -> None:
    assert Client(gate, gate.key(tags=("beta",)))(PATH, WORDS, None, **SAID).status == 200
    assert gate.events()[0].tags == ("beta",)
