"""Echo repeats words, and reads what it is sent once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.providers.echo import words
from tests.growth import assert_linear


def test_a_word_has_the_space_before_it() -> None:
    assert words("  one two\n\nthree ") == ["  one", " two", "\n\nthree"]


@given(some.text(alphabet="ab \n\t", max_size=30))
def test_words_are_those_of_the_text(text: str) -> None:
    assert "".join(words(text)) == text.rstrip()
    assert [word.strip() for word in words(text)] == text.split()


@pytest.mark.parametrize("unit", [" ", "a", "a ", " \n"])
def test_counting_words_takes_linear_time(unit: str) -> None:
    assert_linear(words, lambda size: unit * size, 20_000)
