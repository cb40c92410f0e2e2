"""The one table of /v1: each path, what it asks of a model, and what its clients speak.

The doors, the paths that admins can switch off, capability checks and the route preview read it. A row's `dialect` is the
name of a module in `app.gateway.dialects`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from app.directory import Capability, KeyScope


class Endpoint(NamedTuple):
    """A path. `id` is the path in words. `capability` and `dialect` are None where the gateway answers without a model."""

    id: str
    path: str
    capability: Capability | None = None
    dialect: str | None = None
    body: Literal["json", "form"] = "json"

    @property
    def scope(self) -> KeyScope:
        """What a key must be made for to be used here."""
        return scope_for(self.capability or "") if self.dialect else "models:read"


def scope_for(capability: str) -> KeyScope:
    """What a key must be made for to use a model's capability."""
    return _SCOPES.get(capability, "chat")


_SCOPES: dict[str, KeyScope] = {
    "embeddings": "embeddings", "transcription": "audio", "translation": "audio", "speech": "audio", "images": "images",
}  # fmt: skip

MODELS = Endpoint("models", "/v1/models")
CHAT = Endpoint("chat-completions", "/v1/chat/completions", "chat", "openai_chat")
MESSAGES = Endpoint("messages", "/v1/messages", "chat", "anthropic_messages")
RESPONSES = Endpoint("responses", "/v1/responses", "chat", "openai_responses")
COMPLETIONS = Endpoint("completions", "/v1/completions", "completions", "openai_completions")
EMBEDDINGS = Endpoint("embeddings", "/v1/embeddings", "embeddings", "openai_embeddings")
TRANSCRIPTIONS = Endpoint(
    "audio-transcriptions", "/v1/audio/transcriptions", "transcription", "openai_transcriptions", "form"
)
TRANSLATIONS = Endpoint("audio-translations", "/v1/audio/translations", "translation", "openai_translations", "form")
SPEECH = Endpoint("audio-speech", "/v1/audio/speech", "speech", "openai_speech")
IMAGES = Endpoint("images-generations", "/v1/images/generations", "images", "openai_images")
IMAGE_EDITS = Endpoint("images-edits", "/v1/images/edits", "images", "openai_images", "form")
IMAGE_VARIATIONS = Endpoint("images-variations", "/v1/images/variations", "images", "openai_variations", "form")
RERANK = Endpoint("rerank", "/v1/rerank", "rerank", "rerank")

TABLE = (
    CHAT, MESSAGES, RESPONSES, COMPLETIONS, EMBEDDINGS, TRANSCRIPTIONS, TRANSLATIONS, SPEECH, IMAGES, IMAGE_EDITS,
    IMAGE_VARIATIONS, RERANK, MODELS,
)  # fmt: skip
ENDPOINTS = {endpoint.id: endpoint for endpoint in TABLE}
# Answered by an upstream, by path.
ASKED = {endpoint.path: endpoint for endpoint in TABLE if endpoint.dialect is not None}
# Counts the tokens of what could be asked at `MESSAGES`, and is switched on and off with it.
COUNT_TOKENS = MESSAGES._replace(
    id="messages-count-tokens", path="/v1/messages/count_tokens", dialect="anthropic_count_tokens"
)

# The meter as tools of LiteLLM's and of OpenRouter's ask for it.
METERS = ("/key/info", "/api/v1/key")

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
    """The path of /v1 that a client means if its path has too many slashes, or /v1 too often or not at all."""
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
    return path in METERS or path.startswith(WITHOUT_V1) or (by_a_client and f"{path}/".startswith("/models/"))
