"""What is counted is read as messages are, but needs no limit."""

from __future__ import annotations

import json

import pytest

from app.gateway.dialects import dialect
from app.gateway.errors import ApiError

BODY = b'{"messages":[{"role":"user","content":"hi"}], "model": "m","new":1}'


def test_a_limit_is_not_asked_for() -> None:
    asked = dialect("anthropic_count_tokens").read(BODY)
    assert asked.checked.model == "m" and asked.raw is not None
    assert b"".join(asked.raw.put({"model": b'"up"'})) == BODY.replace(b'"m"', b'"up"')
    with pytest.raises(ApiError):
        dialect("anthropic_messages").read(BODY)


def test_what_is_missing_is_named_all_the_same() -> None:
    with pytest.raises(ApiError) as refused:
        dialect("anthropic_count_tokens").read(b'{"model":"m"}')
    assert refused.value.param == "messages"
    told = json.loads(dialect("anthropic_count_tokens").error(refused.value, "r"))
    assert (told["error"]["type"], told["request_id"]) == ("invalid_request_error", "r")
