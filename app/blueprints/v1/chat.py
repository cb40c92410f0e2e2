"""`POST /v1/chat/completions`."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.v1.asking import call_for
from app.blueprints.v1.guard import guarded
from app.blueprints.v1.reply import served
from app.directory import CallerRecord, Model
from app.gateway.requests import ChatRequest
from app.metering.pricing import Bound

PATH = "/v1/chat/completions"


def open_on(door: Blueprint) -> None:
    door.post("/chat/completions")(guarded(complete))


def complete(caller: CallerRecord) -> Response:
    return served(call_for(caller, PATH, "chat", ChatRequest, _bound))


def _bound(asked: ChatRequest, members: dict[str, bytes], model: Model) -> Bound:
    return Bound(asked.input_bound(members, model), asked.output_limit, asked.n or 1)
