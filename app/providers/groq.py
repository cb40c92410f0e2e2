"""Groq, by its OpenAI-shaped API."""

from __future__ import annotations

from typing import ClassVar

from app.providers.openai import BaseUrl, OpenAI, OpenAISettings, OutputLimitField
from app.providers.settings import Settings


class GroqSettings(OpenAISettings):
    """What Groq can be told."""

    base_url: BaseUrl = "https://api.groq.com/openai/v1"
    output_limit_field: OutputLimitField = "max_tokens"


class Groq(OpenAI):
    """An upstream at Groq."""

    title: ClassVar[str] = "Groq"
    Settings: ClassVar[type[Settings]] = GroqSettings


ADAPTER = Groq
