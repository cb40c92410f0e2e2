"""What is shown of embeddings, pictures and sounds, whatever an upstream answers."""

from __future__ import annotations

from typing import Any

import pytest

from app.pages.trials import Picture, completion_in, pictures_in, similarities, sound_of, text_in, vectors_in


def test_vectors_are_compared_by_their_cosine() -> None:
    cells = similarities([[1, 0], [0, 2], [-3, 0], [0, 0], [1, 1]])
    assert [cell.text for cell in cells[0]] == ["1.00", "0.00", "-1.00", "0.00", "0.71"]
    assert [cell.grade for cell in cells[0]] == [5, 0, 0, 0, 4]


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"data": None}, {"data": [1, {"embedding": "x", "url": 3}]}, {"choices": [1], "text": 1}]
)
def test_what_is_no_answer_shows_nothing(answer: Any) -> None:
    assert vectors_in(answer) == pictures_in(answer) == []
    assert text_in(answer) == completion_in(answer) == ""


def test_pictures_are_shown_and_those_elsewhere_only_linked() -> None:
    answer = {
        "output_format": "webp",
        "data": [{"b64_json": "AAAA"}, {"url": "https://x.test/a"}, {"url": "javascript:x"}],
    }
    assert pictures_in(answer) == [Picture("data:image/webp;base64,AAAA", None), Picture(None, "https://x.test/a")]


@pytest.mark.parametrize(
    ("told", "kind"), [("audio/wav; x=1", "audio/wav"), ("text/html", "audio/mpeg"), (None, "audio/mpeg")]
)
def test_a_sound_is_never_anything_else(told: str | None, kind: str) -> None:
    assert sound_of(b"\0\0\0", told) == f"data:{kind};base64,AAAA"
