"""Kinds of upstream that speak OpenAI's format and need no code of their own: a row each.

Beside rows this module imports nothing, so that the kinds can be listed without loading an adapter.
"""

from __future__ import annotations

from typing import NamedTuple


class OpenAIKind(NamedTuple):
    """What such a kind does not share with OpenAI."""

    title: str
    base_url: str
    output_limit_field: str = "max_tokens"


ROWS: dict[str, OpenAIKind] = {
    "groq": OpenAIKind("Groq", "https://api.groq.com/openai/v1"),
    "litellm": OpenAIKind("LiteLLM", "http://localhost:4000/v1"),
    "ollama": OpenAIKind("Ollama", "http://localhost:11434/v1"),
    "vllm": OpenAIKind("vLLM", "http://localhost:8000/v1"),
}
