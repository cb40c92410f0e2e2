"""Kinds of upstream that speak OpenAI's format and need no code of their own: a row each.

Beside rows this module imports nothing, so that the kinds can be listed without loading an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

NOTHING: Mapping[str, Any] = MappingProxyType({})


class OpenAIKind(NamedTuple):
    """What such a kind does not share with OpenAI.

    From `auth` on, each is also a setting of `app.providers.openai.SHAPE`: a kind's form asks for those that `asks` names,
    and the row has their defaults.
    """

    title: str
    base_url: str | None  # None: there is no usual one, it must be given
    output_limit_field: str = "max_tokens"
    asks: tuple[str, ...] = ()
    auth: str = "bearer"  # bearer, header, basic or none
    auth_header: str = "api-key"  # by which `header` sends the key
    username: str = ""  # that `basic` sends with the key
    headers: Mapping[str, str] = NOTHING  # sent with every request
    query: Mapping[str, str] = NOTHING  # behind every path
    path: str = "{path}"  # of a call below the base URL; {model} is the model's name there
    list_path: str = "/models"
    rename: Mapping[str, str] = NOTHING  # members of a body, and what the upstream calls them
    drop: tuple[str, ...] = ()  # members of a body that it refuses, and that change no answer
    api_version: str | None = None
    service: str = "auto"  # of Hugging Face's: router, endpoint, or what the address tells
    hears_thoughts: bool = False  # it takes back what its models thought, and wants to
    tasks: str = ""  # the module with what it is asked for in a way of its own, and the class there
    responses: bool = False  # it speaks OpenAI's Responses too; a setting of every kind
    responses_path: str = ""  # where, if that is not at `path`


ROWS: dict[str, OpenAIKind] = {
    # Its newer interface lies below /openai/v1 and is OpenAI's; the older one has a path for each deployment.
    "azure": OpenAIKind(
        "Azure OpenAI",
        None,
        "max_completion_tokens",
        asks=("api_version",),
        auth="header",
        responses=True,
    ),
    "deepseek": OpenAIKind("DeepSeek", "https://api.deepseek.com/v1", hears_thoughts=True),
    "groq": OpenAIKind("Groq", "https://api.groq.com/openai/v1"),
    "huggingface": OpenAIKind(
        "Hugging Face",
        "https://router.huggingface.co/v1",
        asks=("service",),
        tasks="huggingface_tasks.HuggingFaceTasks",
    ),
    "litellm": OpenAIKind("LiteLLM", "http://localhost:4000/v1"),
    "mistral": OpenAIKind(
        "Mistral",
        "https://api.mistral.ai/v1",
        rename={"seed": "random_seed"},
        drop=("metadata", "service_tier", "store", "stream_options", "user"),  # it tells usage unasked
    ),
    "ollama": OpenAIKind("Ollama", "http://localhost:11434/v1"),
    "openrouter": OpenAIKind("OpenRouter", "https://openrouter.ai/api/v1"),
    "other": OpenAIKind(
        "Other (OpenAI-compatible)",
        None,
        asks=("auth", "auth_header", "username", "headers", "query", "path", "list_path", "rename", "drop"),
    ),
    "vllm": OpenAIKind("vLLM", "http://localhost:8000/v1", hears_thoughts=True),
}
