"""vLLM, by its OpenAI-shaped API."""

from __future__ import annotations

from typing import ClassVar

from app.providers.openai import BaseUrl, OpenAI, OpenAISettings, OutputLimitField
from app.providers.settings import Settings


class vLLMSettings(OpenAISettings):
    """What vLLM can be told."""

    base_url: BaseUrl = "http://localhost:8000/v1"
    output_limit_field: OutputLimitField = "max_tokens"


class vLLM(OpenAI):
    """An upstream at vLLM."""

    title: ClassVar[str] = "vLLM"
    Settings: ClassVar[type[Settings]] = vLLMSettings


ADAPTER = vLLM
