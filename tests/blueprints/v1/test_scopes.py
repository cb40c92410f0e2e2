"""What a key may be used for: a path outside its scopes is refused before anything is read of the request."""

from __future__ import annotations

import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate

PATHS = {
    "/v1/chat/completions": "chat", "/v1/estimate": "chat", "/v1/embeddings": "embeddings",
    "/v1/audio/transcriptions": "audio", "/v1/audio/translations": "audio",
}  # fmt: skip


@pytest.mark.parametrize("path", [*PATHS, "/v1/models", "/v1/models/small"])
@pytest.mark.parametrize("scope", ["chat", "embeddings", "audio", "images", "models:read"])
def test_a_key_is_good_for_its_scopes_alone(gate: Gate, path: str, scope: str) -> None:
    client = Client(gate, gate.key(scopes=(scope,)))
    answer = client(path, None if path.startswith("/v1/models") else b"{")
    if PATHS.get(path, "models:read") == scope:
        assert answer.status in (200, 400)
    else:
        assert answer.error == (403, "invalid_request_error", "insufficient_scope")
        assert scope in answer.json["error"]["message"]
        assert answer.headers["x-should-retry"] == "false"


def test_a_key_without_scopes_is_good_for_everything_and_any_key_tells_its_meter(gate: Gate) -> None:
    client = Client(gate, gate.key())
    assert client.chat().status == client("/v1/models").status == 200
    assert Client(gate, gate.key(scopes=("images",)))("/v1/key").status == 200


def test_a_refused_key_is_not_tried_again(gate: Gate) -> None:
    assert Client(gate, None).chat().headers["x-should-retry"] == "false"
