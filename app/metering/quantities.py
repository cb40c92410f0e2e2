"""The one list of what a call can use, and of what is paid for it.

Events, holds, prices, the ledger's columns, sums, exports and the arithmetic shown derive from it. Counts are whole numbers;
a quantity may be part of another, such as cached tokens of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

MILLION = 1_000_000
MINUTE_MS = 60_000

Unit = Literal["tokens", "images", "ms", "characters"]


def _of(title: str, price: str | None, unit: Unit = "tokens", per: int = MILLION, **more: str) -> Meta:
    return Meta(title=title, extra={"price": price, "unit": unit, "per": per} | more)


class Quantities(msgspec.Struct, kw_only=True):
    """What a call used, one member for each quantity.

    `price` is the member of a price that it is charged by, for so many as `per` tells. `within` names the quantity that it is
    part of; `like` the price that holds if its own is not given.
    """

    prompt_tokens: Annotated[int, _of("Input", "input_per_mtok")] = 0
    cached_tokens: Annotated[
        int, _of("Cached input", "cached_input_per_mtok", within="prompt_tokens", like="input_per_mtok")
    ] = 0
    cache_write_tokens: Annotated[
        int, _of("Cache write", "cache_write_per_mtok", within="prompt_tokens", like="input_per_mtok")
    ] = 0
    cache_write_1h_tokens: Annotated[
        int, _of("Cache write, 1 hour", "cache_write_1h_per_mtok", within="prompt_tokens", like="cache_write_per_mtok")
    ] = 0
    audio_input_tokens: Annotated[
        int, _of("Audio input", "audio_input_per_mtok", within="prompt_tokens", like="input_per_mtok")
    ] = 0
    image_input_tokens: Annotated[
        int, _of("Image input", "image_input_per_mtok", within="prompt_tokens", like="input_per_mtok")
    ] = 0
    completion_tokens: Annotated[int, _of("Output", "output_per_mtok")] = 0
    reasoning_tokens: Annotated[int, _of("Reasoning", None, within="completion_tokens")] = 0
    audio_output_tokens: Annotated[
        int, _of("Audio output", "audio_output_per_mtok", within="completion_tokens", like="output_per_mtok")
    ] = 0
    image_output_tokens: Annotated[
        int, _of("Image output", "image_output_per_mtok", within="completion_tokens", like="output_per_mtok")
    ] = 0
    images: Annotated[int, _of("Image", "per_image", "images", 1)] = 0
    audio_ms: Annotated[int, _of("Audio time", "per_audio_minute", "ms", MINUTE_MS)] = 0
    characters: Annotated[int, _of("Characters", "per_million_characters", "characters")] = 0


class Quantity(NamedTuple):
    """A line of the list."""

    name: str
    title: str
    unit: Unit
    price: str | None
    per: int
    within: str | None
    like: str | None


class PriceMember(NamedTuple):
    """A member of a price: nano-units for `per` of `unit`. `like` is the one that holds if it is not given."""

    name: str
    title: str
    unit: Unit | Literal["requests"]
    per: int
    like: str | None

    @property
    def help(self) -> str:
        """What it is the price of, in a word or two."""
        words = {"images": "Each.", "requests": "Each.", "ms": "Per minute."}
        return words.get(self.unit, f"Per 1M {self.unit}.")


def _listed() -> tuple[Quantity, ...]:
    found = []
    for name, hint in get_type_hints(Quantities, include_extras=True).items():
        meta: Any = hint.__metadata__[0]
        extra = meta.extra
        found.append(
            Quantity(
                name, meta.title, extra["unit"], extra["price"], extra["per"], extra.get("within"), extra.get("like")
            )
        )
    return tuple(found)


QUANTITIES = _listed()
NAMES = tuple(one.name for one in QUANTITIES)
# What is within each quantity, priced apart if its price says so.
PARTS: Mapping[str, tuple[Quantity, ...]] = {
    whole.name: tuple(one for one in QUANTITIES if one.within == whole.name)
    for whole in QUANTITIES
    if whole.within is None
}
PRICE_MEMBERS = (
    *(PriceMember(one.price, one.title, one.unit, one.per, one.like) for one in QUANTITIES if one.price is not None),
    PriceMember("per_request", "Request", "requests", 1, None),
)
PRICES = tuple(one.name for one in PRICE_MEMBERS)


def counts_of(used: object) -> dict[str, int]:
    """The quantities of an event, an entry or a sum that are not 0, by name."""
    return {name: count for name in NAMES if (count := getattr(used, name))}
