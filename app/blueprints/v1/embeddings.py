"""`POST /v1/embeddings`."""

from __future__ import annotations

from app.blueprints.v1.asking import call_for
from app.blueprints.v1.reply import served
from app.blueprints.v1.visit import Answer, Visit
from app.directory import CallerRecord
from app.gateway.requests import EmbeddingsRequest


def embed(visit: Visit, caller: CallerRecord) -> Answer:
    return served(visit, call_for(visit, caller, "embeddings", EmbeddingsRequest))
