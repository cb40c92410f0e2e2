"""A sound as Triton's models hear it: the file in base64, or its samples; and transcripts in the formats of OpenAI."""

from __future__ import annotations

import wave
from base64 import b64encode
from typing import IO, Any, cast

import msgspec

from app.providers.errors import UpstreamError
from app.providers.tokens import apart
from app.runtime.forms import Upload

_PIECE = 3 << 18  # bytes; base64 writes three as four, so pieces can be joined


def text_of_file(file: Upload) -> bytes:
    """The file in base64, made in the native thread."""
    return apart(lambda: _in_base64(file.content))


def _in_base64(content: IO[bytes]) -> bytes:
    content.seek(0)
    pieces = []
    while piece := content.read(_PIECE):
        pieces.append(b64encode(piece))
    return b"".join(pieces)


def samples_of(file: Upload) -> tuple[bytes, int]:
    """The samples of a WAV file between -1 and 1, FP32, its channels mixed; and how many a second has. Raises
    `UpstreamError` for another file."""
    return apart(lambda: _samples(file.content))


def _samples(content: IO[bytes]) -> tuple[bytes, int]:
    import numpy as np  # here alone: it is large

    content.seek(0)
    try:
        with wave.open(cast("Any", content), "rb") as sound:
            width, channels, rate = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
            frames = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError):
        raise UpstreamError("This model hears WAV files alone (PCM).", refused=True, status=400, param="file") from None
    if width == 1:
        values = (np.frombuffer(frames, np.uint8).astype(np.float32) - 128) / 128
    elif width == 3:
        parts = np.frombuffer(frames[: len(frames) // 3 * 3], np.uint8).reshape(-1, 3).astype(np.int32)
        whole = (parts[:, 0] << 8 | parts[:, 1] << 16 | parts[:, 2] << 24) >> 8
        values = whole.astype(np.float32) / 2**23
    else:
        values = np.frombuffer(frames, np.int16 if width == 2 else np.int32).astype(np.float32) / 2 ** (8 * width - 1)
    if channels > 1:
        values = values[: len(values) // channels * channels].reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return values.tobytes(), rate


def transcript(text: str, seconds: float, asked: Any, used: dict[str, Any]) -> bytes:
    """The transcript in the format that was asked for."""
    match asked.response_format:
        case "text":
            return text.encode() + b"\n"
        case "srt":
            return f"1\n{_moment(0, ',')} --> {_moment(seconds, ',')}\n{text.strip()}\n\n".encode()
        case "vtt":
            return f"WEBVTT\n\n{_moment(0, '.')} --> {_moment(seconds, '.')}\n{text.strip()}\n\n".encode()
        case "verbose_json":
            segment = {"id": 0, "start": 0.0, "end": seconds, "text": text}
            told = {"task": "transcribe", "language": asked.language or "", "duration": seconds, "text": text}
            return msgspec.json.encode(told | {"segments": [segment] if text else [], "usage": used})
    return msgspec.json.encode({"text": text, "usage": used})


def _moment(seconds: float, point: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"
