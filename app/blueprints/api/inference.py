"""Calls of models without a key, metered and charged as a key of the person, or of a team, without limits of its own; and
the person's history of them."""

from __future__ import annotations

from datetime import datetime
from time import monotonic
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route
from app.domain import inferences, teams
from app.domain.errors import Invalid
from app.extensions import db, transaction
from app.metering import money
from app.runtime.templates import Value
from app.workflows import inference


class Run(Body, kw_only=True):
    """What to ask: a `prompt`, `messages` as chat completions take them, or a kept prompt by its id, with a value for each of
    its variables. `parameters` are other members of that body. With `store` your history keeps the words, else the figures
    alone."""

    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    prompt: str | UnsetType = UNSET
    messages: list[dict[str, Any]] | UnsetType = UNSET
    prompt_id: Annotated[str, Meta(min_length=1, max_length=36)] | None = None
    version: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    variables: dict[str, Value] = {}
    parameters: dict[str, Any] = {}
    team_id: Annotated[str, Meta(max_length=36)] | None = None
    store: bool = False


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


class PastRun(msgspec.Struct, kw_only=True):
    """One call of your history. `input` (a prompt, or messages) and `output` are null unless they were to be stored; `status` is
    the HTTP status of the call."""

    id: str
    at: datetime
    model: str
    prompt_id: str | None
    version: int | None
    input: str | list[dict[str, Any]] | None
    output: str | None
    usage: TokensUsed
    cost: str
    status: int


class PastRunPage(CursorPage, kw_only=True):
    data: list[PastRun]


class Query(Cursored, kw_only=True):
    """`search` looks in the words that were stored."""

    search: Annotated[str, Meta(max_length=200)] | None = None


OWN = ("model", "messages", "prompt", "stream", "stream_options")


@route("POST", "/api/inference/run", answer=RunResult, body=Run, calls=True)
def run(body: Run) -> RunResult:
    """Has a chat answered whole."""
    if [body.prompt is UNSET, body.messages is UNSET, body.prompt_id is None].count(False) != 1:
        raise Invalid("Give one of prompt, messages and prompt_id.", "prompt")
    for name in OWN:
        if name in body.parameters:
            raise Invalid(f"'{name}' is no parameter.", f"parameters.{name}")
    person = me()
    person_id = person.id
    caller = inference.caller_of(person, None if body.team_id is None else teams.get_visible(person, body.team_id))
    asked: Any = body.prompt if body.messages is UNSET else body.messages
    model, kept = body.model, None
    if body.prompt_id is not None:
        kept = inference.fill(person, body.prompt_id, body.version, body.variables)
        model, asked = model or kept.model, kept.text
    elif body.variables or body.version is not None:
        raise Invalid(
            "Only a prompt with an id has variables and versions.", "variables" if body.variables else "version"
        )
    if model is None:
        raise Invalid("Enter the name of a model.", "model")
    db.session.rollback()  # the upstream may be slow; no transaction must stay open meanwhile
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    began = monotonic()
    try:
        answered = inference.chat(
            caller, {**body.parameters, "model": model, "messages": messages}, kept.tags if kept else ()
        )
    except inference.Refused as refused:
        name = (refused.field or "").partition("[")[0].partition(".")[0]
        if name in body.parameters:
            refused.field = f"parameters.{refused.field}"
        elif name == "messages" and body.messages is UNSET:
            refused.field = "prompt" if kept is None else "prompt_id"
        raise
    choice = (answered.answer.get("choices") or [{}])[0]
    output = (choice.get("message") or {}).get("content")
    event = answered.event
    transaction(
        inferences.keep, person_id, id=answered.id, model=event.model, prompt=(kept.id, kept.version) if kept else None,
        asked=asked if body.store else None, output=output if body.store else None,
        prompt_tokens=event.prompt_tokens, completion_tokens=event.completion_tokens, cost_nano=event.cost_nano,
        status=event.status,
    )  # fmt: skip
    return RunResult(
        id=answered.id,
        model=model,
        output=output,
        finish_reason=choice.get("finish_reason"),
        usage=_used(event.prompt_tokens, event.completion_tokens),
        cost=money.text(event.cost_nano),
        latency_ms=int((monotonic() - began) * 1000),
        prompt_id=kept.id if kept else None,
        version=kept.version if kept else None,
    )


@route("GET", "/api/inference/history", query=Query, answer=PastRunPage)
def history(query: Query) -> dict[str, Any]:
    """Lists your own calls without a key, newest first."""
    return page(inferences.owned_by(me(), query.search), _show)


@route("DELETE", "/api/inference/history", status=204, writes=True)
def clear() -> None:
    """Clears your history. The ledger keeps what the calls cost."""
    inferences.clear(me())


def _show(row: inferences.Inference) -> PastRun:
    return PastRun(
        id=row.id,
        at=row.at,
        model=row.model,
        prompt_id=row.prompt_id,
        version=row.prompt_version,
        input=row.asked,
        output=row.output,
        usage=_used(row.prompt_tokens, row.completion_tokens),
        cost=money.text(row.cost_nano),
        status=row.status,
    )


def _used(prompt_tokens: int, completion_tokens: int) -> TokensUsed:
    return TokensUsed(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )
