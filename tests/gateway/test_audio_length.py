"""How long a sound is, whatever its file says and however it was made."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.audio_length import LONGEST_MS, Length, length_of
from app.runtime.forms import Upload
from tests.services.sounds import wav, webm


def upload(content: bytes) -> Upload:
    made = Upload("file", "sound", "audio/x", io.BytesIO())
    made.add(content)
    return made


def length(content: bytes) -> Length:
    return length_of(upload(content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (wav(2.5), 2500), (wav(0.0305), 31), (webm(seconds=7.25), 7250), (webm(blocks_ms=(0, 900)), 900),
        (webm(blocks_ms=(2000, 2900), live=True), 2900),
    ],
)  # fmt: skip
def test_the_length_is_read_from_the_file_and_rounded_up(content: bytes, expected: int) -> None:
    assert length(content) == Length(True, expected, expected)


def broken() -> Iterator[bytes]:
    yield b"no sound at all" * 1000
    yield webm(blocks_ms=(0,))  # nothing after its beginning
    yield webm(seconds=float("nan"))
    yield webm(seconds=float("inf"))
    yield webm(seconds=-1)
    yield webm(seconds=LONGEST_MS)


@pytest.mark.parametrize("content", list(broken()))
def test_what_can_not_be_read_is_bounded_by_its_size(content: bytes) -> None:
    found = length(content)
    assert not found.is_known
    assert 0 < found.usual_ms <= found.longest_ms <= LONGEST_MS


@given(st.binary(max_size=300), st.sampled_from([wav(0.1), webm(), webm(live=True), b"ID3", b"OggS", b"fLaC", b"RIFF"]))
def test_no_file_is_too_odd(tail: bytes, head: bytes) -> None:
    found = length(head[: len(tail) * 3 + 4] + tail)
    assert 0 < found.usual_ms <= found.longest_ms <= LONGEST_MS
