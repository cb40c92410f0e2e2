"""The paths of /v1 that this version serves and that can be switched off: one row each, and what it asks of a model."""

from __future__ import annotations

from typing import NamedTuple

from app.directory import Capability


class Endpoint(NamedTuple):
    """A path; `capability` is None for one that asks no model. `id` is the path in words."""

    id: str
    path: str
    capability: Capability | None = None


MODELS = Endpoint("models", "/v1/models")
CHAT = Endpoint("chat-completions", "/v1/chat/completions", "chat")
EMBEDDINGS = Endpoint("embeddings", "/v1/embeddings", "embeddings")

ENDPOINTS = {endpoint.id: endpoint for endpoint in (CHAT, EMBEDDINGS, MODELS)}
