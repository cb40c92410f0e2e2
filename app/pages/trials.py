"""What the playground shows of answers that are no chats: how alike embeddings are, pictures, sounds, and texts."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

MOST_TEXTS = 12  # that are compared with each other
SOUNDS = ("audio/mpeg", "audio/wav", "audio/ogg", "audio/flac", "audio/aac", "audio/opus")


class Cell(NamedTuple):
    """How alike two texts are, -1 to 1, and the grade of its colour, 0 to 5."""

    text: str
    grade: int


def similarities(vectors: Sequence[Sequence[float]]) -> list[list[Cell]]:
    """The cosine of each vector with each; a vector of zeros is like none."""
    lengths = [math.sqrt(sum(one * one for one in vector)) for vector in vectors]
    return [
        [_cell(vectors[row], vectors[column], lengths[row] * lengths[column]) for column in range(len(vectors))]
        for row in range(len(vectors))
    ]


def vectors_in(answer: Any) -> list[list[float]]:
    """The vectors of an answer, in the order of the texts; none where one of them is none."""
    rows = answer.get("data") if isinstance(answer, dict) else None
    vectors = []
    for row in rows or ():
        vector = row.get("embedding") if isinstance(row, dict) else None
        if not isinstance(vector, list) or not all(isinstance(one, int | float) for one in vector):
            return []
        vectors.append([float(one) for one in vector])
    return vectors


def text_in(answer: Any) -> str:
    """The text that a sound was written down as."""
    text = answer.get("text") if isinstance(answer, dict) else None
    return text if isinstance(text, str) else ""


def completion_in(answer: Any) -> str:
    """The text of the first choice of a completion."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    return text_in(choices[0]) if isinstance(choices, list) and choices else ""


class Picture(NamedTuple):
    """A picture that can be shown (`source`), or the address of one elsewhere, which the page does not load."""

    source: str | None
    address: str | None


def pictures_in(answer: Any) -> list[Picture]:
    """The pictures of an answer."""
    rows = answer.get("data") if isinstance(answer, dict) else None
    kind = answer.get("output_format") if isinstance(answer, dict) else None
    kind = kind if kind in ("png", "jpeg", "webp") else "png"
    found = []
    for row in rows or ():
        data, address = (row.get("b64_json"), row.get("url")) if isinstance(row, dict) else (None, None)
        if isinstance(data, str):
            found.append(Picture(f"data:image/{kind};base64,{data}", None))
        elif isinstance(address, str) and address.startswith("https://"):
            found.append(Picture(None, address))
    return found


def sound_of(body: bytes, media_type: str | None) -> str:
    """A sound as a data URL for a player."""
    kind = (media_type or "").partition(";")[0].strip().lower()
    return f"data:{kind if kind in SOUNDS else SOUNDS[0]};base64,{base64.b64encode(body).decode()}"


def _cell(one: Sequence[float], other: Sequence[float], lengths: float) -> Cell:
    value = sum(a * b for a, b in zip(one, other, strict=False)) / lengths if lengths else 0.0
    return Cell(f"{value:.2f}", min(max(int(value * 5 + 0.5), 0), 5))
