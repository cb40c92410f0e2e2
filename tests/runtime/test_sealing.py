"""Sealed secrets name their key, open in their own place only, and are followed from key to key."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as some

from app.runtime.sealing import Sealer, SealingError, key_id, key_id_of

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()


@given(some.binary(max_size=200), some.text(alphabet="abc:-/", min_size=1, max_size=40))
def test_what_is_sealed_opens_in_its_place_alone(plain: bytes, place: str) -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(plain, place)
    assert sealer.open(sealed, place) == plain
    with pytest.raises(SealingError, match="another place"):
        sealer.open(sealed, f"{place}x")


def test_a_sealed_text_names_its_key_and_does_not_tell_it() -> None:
    sealed = Sealer([OLD]).seal(b"x", "p")
    assert key_id_of(sealed) == key_id(OLD) != key_id(NEW)
    assert OLD.decode()[:8] not in key_id(OLD)


def test_texts_of_an_earlier_version_open_until_they_are_sealed_anew() -> None:
    earlier = Fernet(OLD).encrypt(b"x").decode()
    assert key_id_of(earlier) is None
    assert Sealer([NEW, OLD]).open(earlier, "p") == b"x"
    with pytest.raises(SealingError):
        Sealer([NEW]).open(earlier, "p")


def test_a_process_follows_a_rotation_of_another() -> None:
    kept = [OLD]
    slow, quick = Sealer(kept, lambda: kept), Sealer([NEW, OLD], lambda: kept)
    kept[:] = [NEW, OLD]
    assert slow.open(quick.seal(b"x", "p"), "p") == b"x"
    before = Sealer([OLD]).seal(b"y", "p")
    kept[:] = [NEW]
    assert key_id_of(slow.seal(b"x", "p")) == key_id(NEW)
    assert slow.open(before, "p") == b"y", "what lives for minutes still opens where it was made"
    assert key_id_of(Sealer([OLD], lambda: kept).seal(b"x", "p")) == key_id(NEW), "never with a key that is about to go"


@pytest.mark.parametrize("wrong", ["", "x", "x:y", "{id}:", "{id}:gAAAAA", ":"])
def test_what_is_no_sealed_text_is_refused(wrong: str) -> None:
    wrong = wrong.replace("{id}", key_id(OLD))
    with pytest.raises(SealingError):
        Sealer([OLD]).open(wrong, "p")


def test_keys_that_cannot_be_read_are_told() -> None:
    def gone() -> list[bytes]:
        raise FileNotFoundError("secrets.json")

    with pytest.raises(SealingError, match="cannot be read"):
        Sealer([OLD], gone).seal(b"x", "p")
