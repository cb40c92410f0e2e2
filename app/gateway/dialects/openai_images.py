"""`POST /v1/images/generations`, and `/v1/images/edits`, a form with pictures as variations are: answered with pictures."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from app.directory import Model
from app.gateway.dialects.base import Asked
from app.gateway.dialects.openai import JsonRequest, Name, OpenAIDialect, added
from app.gateway.dialects.openai_forms import asked_of
from app.gateway.errors import bad_request
from app.metering.pricing import TokenBound
from app.runtime.forms import Form

# Tokens of a million pixels (2^20) as OpenAI counts them, by quality.
PER_MEGAPIXEL = {"low": 272, "medium": 1056}
BEST_PER_MEGAPIXEL = 4160
LARGEST_USUAL = 1536 * 1024  # pixels, where the model chooses
PER_PARTIAL = 100  # tokens of a picture that is shown before it is done
# How much more than these a picture may be, and the most tokens that a picture in a form can be.
MARGIN = 2
READ_MOST = 12_288
MOST_PICTURES = 16
DEFAULT_MODEL = "dall-e-2"  # of requests that name none, by OpenAI's schema; an alias can lead it to another

Size = Annotated[str, Meta(pattern=r"^(?:auto|[1-9][0-9]{1,4}x[1-9][0-9]{1,4})\Z")]


class ImageRequest(JsonRequest):
    """What both have in common."""

    model: Name = DEFAULT_MODEL
    prompt: Annotated[str, Meta(max_length=32_000)] = ""
    n: Annotated[int, Meta(ge=1, le=10)] | None = None
    size: Size | None = None
    quality: Literal["standard", "hd", "low", "medium", "high", "auto"] | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    stream: bool | None = None

    required: ClassVar[tuple[str, ...]] = ("prompt",)

    @property
    def read_tokens(self) -> int:
        """What the pictures that come with it may be."""
        return 0

    @property
    def tokens_of_one(self) -> int:
        """What a picture may well be."""
        width, _, height = (self.size or "auto").partition("x")
        pixels = int(width) * int(height) if height else LARGEST_USUAL
        per = PER_MEGAPIXEL.get(self.quality or "", BEST_PER_MEGAPIXEL)
        return -(-pixels * per >> 20) + PER_PARTIAL * (self.partial_images or 0)

    @property
    def pictures(self) -> int:
        """How many are asked for."""
        return self.n or 1

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        return TokenBound(
            input=size + added(model) + self.read_tokens,
            output=model.max_output_tokens or MARGIN * self.tokens_of_one,
            answers=self.pictures,
            unseen=self.read_tokens,
            priced_apart=priced_apart,
            more={"images": self.pictures},
        )


class GenerationRequest(ImageRequest):
    """`POST /v1/images/generations`."""

    moderation: Literal["low", "auto"] | None = None
    style: Literal["vivid", "natural"] | None = None


class FormRequest(ImageRequest):
    """What comes with pictures."""

    read_tokens: int = msgspec.field(name="", default=0)  # no field of a form is named so


class EditRequest(FormRequest):
    """`POST /v1/images/edits`."""

    input_fidelity: Literal["high", "low"] | None = None


class OpenAIImages(OpenAIDialect):
    """OpenAI's images: made from a text, or where the request is a form, from pictures too."""

    name: ClassVar[str] = "openai_images"
    end: ClassVar[bytes] = b""
    request: ClassVar[type[JsonRequest]] = GenerationRequest
    form: ClassVar[type[JsonRequest]] = EditRequest

    def read(self, body: Any) -> Asked:
        if not isinstance(body, Form):
            return super().read(body)
        pictures = _pictures_of(body)
        asked = asked_of(body, self.form)
        asked.checked.read_tokens = READ_MOST * pictures  # type: ignore[attr-defined]
        return asked


def _pictures_of(form: Form) -> int:
    """How many pictures are in a form. Raises `ApiError` 400."""
    images = masks = 0
    for file in form.files:
        base = file.name.removesuffix("[]")
        images += base == "image"
        masks += base == "mask"
        if base not in ("image", "mask"):
            raise bad_request("A file of the form must be named 'image' or 'mask'.", file.name[:100])
        if not len(file):
            raise bad_request(f"'{base}' is empty.", base)
    if not images:
        raise bad_request("Missing required parameter: 'image'.", "image")
    if images > MOST_PICTURES or masks > 1:
        name = "mask" if masks > 1 else "image"
        raise bad_request(f"The form has too many files: at most {MOST_PICTURES} images and one mask are taken.", name)
    return images + masks


DIALECT = OpenAIImages()
