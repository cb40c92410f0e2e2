"""`POST /v1/embeddings`."""

from __future__ import annotations

from app.blueprints.v1.asking import call_for
from app.blueprints.v1.reply import served
from app.blueprints.v1.visit import Answer, Visit
from app.directory import CallerRecord, Model
from app.gateway.requests import EmbeddingsRequest
from app.metering.pricing import Bound


def embed(visit: Visit, caller: CallerRecord) -> Answer:
    return served(visit, call_for(visit, caller, "embeddings", EmbeddingsRequest, _bound))


def _bound(asked: EmbeddingsRequest, members: dict[str, bytes], model: Model) -> Bound:
    return Bound(asked.input_bound(), None, produces_output=False)
