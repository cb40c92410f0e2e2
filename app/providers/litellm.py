"""LiteLLM, by its OpenAI-shaped API."""

from __future__ import annotations

from typing import ClassVar

from app.providers.openai import BaseUrl, OpenAI, OpenAISettings, OutputLimitField
from app.providers.settings import Settings


class LiteLLMSettings(OpenAISettings):
    """What LiteLLM can be told."""

    base_url: BaseUrl = "http://localhost:4000/v1"
    output_limit_field: OutputLimitField = "max_tokens"


class LiteLLM(OpenAI):
    """An upstream at LiteLLM."""

    title: ClassVar[str] = "LiteLLM"
    Settings: ClassVar[type[Settings]] = LiteLLMSettings


ADAPTER = LiteLLM
