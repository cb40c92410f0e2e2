"""Ollama, by its OpenAI-shaped API."""

from __future__ import annotations

from typing import ClassVar

from app.providers.openai import BaseUrl, OpenAI, OpenAISettings, OutputLimitField
from app.providers.settings import Settings


class OllamaSettings(OpenAISettings):
    """What Ollama can be told."""

    base_url: BaseUrl = "http://localhost:11434/v1"
    output_limit_field: OutputLimitField = "max_tokens"


class Ollama(OpenAI):
    """An upstream at Ollama."""

    title: ClassVar[str] = "Ollama"
    Settings: ClassVar[type[Settings]] = OllamaSettings


ADAPTER = Ollama
