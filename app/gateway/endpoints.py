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

# Where clients go whose base URL lacks /v1: nothing else of Portico's begins like these.
WITHOUT_V1 = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/responses",
    "/messages",
    "/audio/",
    "/images/",
    "/moderations",
    "/rerank",
)


def meant_by(path: str) -> str:
    """The path of /v1 that a client means which has too many slashes, or /v1 too often or not at all."""
    parts = [part for part in path.split("/") if part]
    while parts[:1] == ["v1"]:
        del parts[0]
    return "/".join(["/v1", *parts])


def is_without_v1(path: str, *, by_a_client: bool) -> bool:
    """Whether a path that does not begin with /v1/ is a client's that means one. `/models` is a page of the portal too:
    there it counts whether a client asks (a program with a key) or a browser."""
    if path.startswith("//"):
        path = "/" + path.lstrip("/")
        if f"{path}/".startswith("/v1/"):
            return True
    return path.startswith(WITHOUT_V1) or (by_a_client and f"{path}/".startswith("/models/"))
