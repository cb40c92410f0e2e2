"""A provider counts where it can; where it can't, or fails, the gateway counts by itself."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.directory import CallerRecord, Deployment, Model
from app.gateway.admission import admit
from app.gateway.counting import prompt_tokens
from app.gateway.endpoints import COUNT_TOKENS, MESSAGES
from app.gateway.errors import ApiError
from app.gateway.runtime import Runtime
from app.providers.base import UpstreamError
from config import Gateway

UP = Deployment(id="d", provider_id="p", upstream_model="up")
MODEL = Model(id="m", name="small", capabilities=("chat",), created=1, deployments=(UP,))
CALLER = CallerRecord(id="k", kind="key", name="k", person_id="p", username="ada", models={"small": "s"})


def counted(*answers: Any, **body: Any) -> int:
    """What is told where providers answer so: a count, None, or an error."""

    def candidate(answer: Any) -> Any:
        def count(request: Any, deployment: Deployment) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return SimpleNamespace(adapter=SimpleNamespace(count_tokens=count), deployment=UP)

    routes = SimpleNamespace(model_for=lambda _: MODEL, candidates=lambda *_: [candidate(answer) for answer in answers])
    routes.with_credentials = lambda _, found: found
    runtime = cast(Runtime, SimpleNamespace(routes=routes, config=SimpleNamespace(gateway=Gateway())))
    asked = {"model": "small", "messages": [{"role": "user", "content": "one two three"}]} | body
    call = admit(runtime, CALLER, COUNT_TOKENS, json.dumps(asked).encode(), id="r")
    return prompt_tokens(runtime, call, MESSAGES.path)


def test_the_provider_that_would_be_asked_counts() -> None:
    assert counted(17, 99) == 17


@pytest.mark.parametrize("answers", [(), (None,), (UpstreamError("away", status=529),), (None, 99)])
def test_else_the_gateway_counts(answers: tuple[Any, ...]) -> None:
    alone = counted(*answers)
    assert 3 <= alone < 10
    assert counted(*answers, system="four five six seven") > alone, "instructions count"
    assert counted(*answers, tools=[{"name": "look_up", "input_schema": {"type": "object"}}]) > alone, "and tools"
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD" * 1000}}
    said = [{"role": "user", "content": [{"type": "text", "text": "one two three"}, picture]}]
    assert counted(*answers, messages=said) < 100, "the data of a picture is no text"


def test_a_request_that_the_provider_refuses_is_refused() -> None:
    error = UpstreamError("too odd", status=400, refused=True, original=("anthropic_messages", b"{}"))
    with pytest.raises(ApiError, match="too odd") as refused:
        counted(error)
    assert (refused.value.status, refused.value.original) == (400, ("anthropic_messages", b"{}"))
