"""Calls of models without a key, metered and charged as a key of the person, or of a team, without limits of its own."""

from __future__ import annotations

from time import monotonic
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import Body, me, route
from app.domain import teams
from app.domain.errors import Invalid
from app.extensions import db
from app.metering import money
from app.workflows import inference


class Run(Body, kw_only=True):
    """What to ask: a `prompt`, or `messages` as chat completions take them. `parameters` are other members of that body."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    prompt: str | UnsetType = UNSET
    messages: list[dict[str, Any]] | UnsetType = UNSET
    parameters: dict[str, Any] = {}
    team_id: Annotated[str, Meta(max_length=36)] | None = None


class TokensUsed(msgspec.Struct, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class RunResult(msgspec.Struct, kw_only=True):
    """The answer, and what it cost. `id` names the request in `/api/requests`."""

    id: str
    model: str
    output: str | None
    finish_reason: str | None
    usage: TokensUsed
    cost: str
    latency_ms: int
    prompt_id: str | None = None
    version: int | None = None


OWN = ("model", "messages", "stream", "stream_options")


@route("POST", "/api/inference/run", answer=RunResult, body=Run, calls=True)
def run(body: Run) -> RunResult:
    """Has a chat answered whole."""
    if (body.prompt is UNSET) == (body.messages is UNSET):
        raise Invalid("Give a prompt or messages, and not both.", "prompt")
    for name in OWN:
        if name in body.parameters:
            raise Invalid(f"'{name}' is no parameter.", f"parameters.{name}")
    person = me()
    caller = inference.caller_of(person, None if body.team_id is None else teams.get_visible(person, body.team_id))
    db.session.rollback()  # the upstream may be slow; no transaction must stay open meanwhile
    messages = [{"role": "user", "content": body.prompt}] if body.messages is UNSET else body.messages
    began = monotonic()
    try:
        answered = inference.chat(caller, {**body.parameters, "model": body.model, "messages": messages})
    except inference.Refused as refused:
        name = (refused.field or "").partition("[")[0].partition(".")[0]
        if name in body.parameters:
            refused.field = f"parameters.{refused.field}"
        elif name == "messages" and body.messages is UNSET:
            refused.field = "prompt"
        raise
    choice = (answered.answer.get("choices") or [{}])[0]
    event = answered.event
    return RunResult(
        id=answered.id,
        model=body.model,
        output=(choice.get("message") or {}).get("content"),
        finish_reason=choice.get("finish_reason"),
        usage=TokensUsed(
            prompt_tokens=event.prompt_tokens,
            completion_tokens=event.completion_tokens,
            total_tokens=event.prompt_tokens + event.completion_tokens,
        ),
        cost=money.text(event.cost_nano),
        latency_ms=int((monotonic() - began) * 1000),
    )
