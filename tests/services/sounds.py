"""Sounds to upload, made here: a WAV file, and WebM as browsers record it."""

from __future__ import annotations

import io
import struct
import wave


def wav(seconds: float = 2.5, rate: int = 8000) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(rate)
        file.writeframes(b"\x80" * int(seconds * rate))
    return made.getvalue()


def webm(*, seconds: float | None = None, blocks_ms: tuple[int, ...] = (0, 900), live: bool = False) -> bytes:
    """A file with a length in its head, or without one: then it lasts until its last block. `live`: of unknown sizes."""
    info = _element(0x2AD7B1, (1_000_000).to_bytes(3))
    if seconds is not None:
        info += _element(0x4489, struct.pack(">d", seconds * 1000))
    blocks = b"".join(_element(0xA3, b"\x81" + struct.pack(">h", ms % 1000) + b"\x80sound") for ms in blocks_ms)
    cluster = _element(0xE7, (blocks_ms[-1] // 1000 * 1000).to_bytes(3)) + blocks
    body = _element(0x1549A966, info) + _element(0x1F43B675, cluster, unknown=live)
    return _element(0x1A45DFA3, b"") + _element(0x18538067, body, unknown=live)


def _element(id: int, data: bytes, *, unknown: bool = False) -> bytes:
    size = b"\x01" + b"\xff" * 7 if unknown else (len(data) | 1 << 56).to_bytes(8)
    return id.to_bytes(-(-id.bit_length() // 8)) + size + data
