"""`POST /v1/chat/completions`."""

from __future__ import annotations

from app.blueprints.v1.asking import call_for
from app.blueprints.v1.reply import served
from app.blueprints.v1.visit import Answer, Visit
from app.directory import CallerRecord
from app.gateway.requests import ChatRequest


def complete(visit: Visit, caller: CallerRecord) -> Answer:
    return served(visit, call_for(visit, caller, "chat", ChatRequest))
