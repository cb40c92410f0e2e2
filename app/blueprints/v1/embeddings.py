"""`POST /v1/embeddings`."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.v1.asking import call_for
from app.blueprints.v1.guard import guarded
from app.blueprints.v1.reply import served
from app.directory import CallerRecord, Model
from app.gateway.requests import EmbeddingsRequest
from app.metering.pricing import Bound

PATH = "/v1/embeddings"


def open_on(door: Blueprint) -> None:
    door.post("/embeddings")(guarded(embed))


def embed(caller: CallerRecord) -> Response:
    return served(call_for(caller, PATH, "embeddings", EmbeddingsRequest, _bound))


def _bound(asked: EmbeddingsRequest, members: dict[str, bytes], model: Model) -> Bound:
    return Bound(asked.input_bound(), None, produces_output=False)
