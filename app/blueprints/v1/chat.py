"""`POST /v1/chat/completions`."""

from __future__ import annotations

from app.blueprints.v1.asking import call_for
from app.blueprints.v1.reply import served
from app.blueprints.v1.visit import Answer, Visit
from app.directory import CallerRecord, Model
from app.gateway.requests import ChatRequest
from app.metering.pricing import Bound


def complete(visit: Visit, caller: CallerRecord) -> Answer:
    return served(visit, call_for(visit, caller, "chat", ChatRequest, _bound))


def _bound(asked: ChatRequest, members: dict[str, bytes], model: Model) -> Bound:
    return Bound(asked.input_bound(members, model), asked.output_limit, asked.n or 1)
