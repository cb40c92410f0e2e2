"""A request to /v1 as its client sent it: a credential stands in several places, and so does the name of a conversation."""

from __future__ import annotations

import pytest

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
