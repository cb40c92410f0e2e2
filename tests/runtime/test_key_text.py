"""The text of a key: made at random, and known again by its shape and its checksum."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.runtime.key_text import is_well_formed, new_key


def test_every_new_key_is_well_formed_and_none_like_another() -> None:
    made = {new_key() for _ in range(1000)}
    assert len(made) == 1000
    assert all(is_well_formed(key) and len(key) == 49 for key in made)


@given(st.integers(3, 48), st.sampled_from("0aZ"))
def test_a_mistyped_key_is_noticed(position: int, sign: str) -> None:
    key = new_key()
    wrong = key[:position] + sign + key[position + 1 :]
    assert is_well_formed(wrong) == (wrong == key)


@given(st.text(max_size=80))
def test_no_other_text_is_a_key(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed("sk-" + text)
