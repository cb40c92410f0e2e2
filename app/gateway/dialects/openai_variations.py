"""`POST /v1/images/variations`: a form with a picture and no words, answered with pictures that are like it."""

from __future__ import annotations

from typing import ClassVar

from app.gateway.dialects.openai import JsonRequest
from app.gateway.dialects.openai_images import FormRequest, OpenAIImages


class VariationRequest(FormRequest):
    """`POST /v1/images/variations`."""

    required: ClassVar[tuple[str, ...]] = ()


class OpenAIVariations(OpenAIImages):
    """OpenAI's images, made from another image."""

    name: ClassVar[str] = "openai_variations"
    form: ClassVar[type[JsonRequest]] = VariationRequest


DIALECT = OpenAIVariations()
