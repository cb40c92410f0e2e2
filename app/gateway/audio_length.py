"""How long a sound is, from its own head or its frames: what a call for it is charged by, whatever the upstream says."""

from __future__ import annotations

import struct
from typing import IO, BinaryIO, NamedTuple, cast

from tinytag import TinyTag

from app.providers.tokens import apart
from app.runtime.forms import Upload

LONGEST_MS = 48 * 3_600_000  # no upload that is taken lasts longer
# The fewest bytes that a millisecond takes in the formats that are taken, and what it usually takes: 6 and 64 kbit/s.
LEAST_BYTES_PER_S = 750
USUAL_BYTES_PER_S = 8_000

_EBML = b"\x1a\x45\xdf\xa3"
_MASTERS = {0x18538067, 0x1549A966, 0x1F43B675}  # Segment, Info, Cluster: what is looked for is within them
_SCALE, _DURATION, _TIME, _BLOCK, _GROUP = 0x2AD7B1, 0x4489, 0xE7, 0xA3, 0xA0
_MOST_ELEMENTS = 200_000


class Length(NamedTuple):
    """How long a sound is: as was read, or else the most that so many bytes can be and what they usually are."""

    is_known: bool
    longest_ms: int
    usual_ms: int


def length_of(file: Upload) -> Length:
    """The length in whole milliseconds, rounded up. It is read in the native thread."""
    known = apart(lambda: _length_ms(file.content))
    if known is not None:
        return Length(True, known, known)
    longest, usual = (min(-(-len(file) * 1000 // rate), LONGEST_MS) for rate in (LEAST_BYTES_PER_S, USUAL_BYTES_PER_S))
    return Length(False, longest, usual)


def _length_ms(content: IO[bytes]) -> int | None:
    content.seek(0)
    try:
        if content.read(4) == _EBML:
            seconds = _matroska_s(content)
        else:
            content.seek(0)
            seconds = TinyTag.get(filename=None, file_obj=cast("BinaryIO", content), tags=False).duration
    except Exception:  # the file is anybody's, and a reader of so many formats fails in as many ways
        return None
    if seconds is None or not 0 < seconds * 1000 <= LONGEST_MS:
        return None
    return -int(-seconds * 1000 // 1)


def _matroska_s(content: IO[bytes]) -> float | None:
    """The length of a Matroska or WebM file, seconds: told in its head or, where browsers record, by its last block."""
    content.seek(0)
    scale, told, cluster, last = 1_000_000, None, 0, 0
    for _ in range(_MOST_ELEMENTS):
        id = _number(content, keep_marker=True)
        size = _number(content, keep_marker=False)
        if id is None or size is None:
            break
        if id in _MASTERS:
            continue
        is_unknown = size == -1
        if is_unknown:
            break
        if id in (_SCALE, _DURATION, _TIME) and size <= 8:
            data = content.read(size)
            if id == _SCALE:
                scale = int.from_bytes(data) or scale
            elif id == _DURATION:
                told = struct.unpack(">f" if size == 4 else ">d", data)[0]
            else:
                cluster = int.from_bytes(data)
                last = max(last, cluster)
        elif id == _BLOCK:
            head = content.read(min(size, 4))
            last = max(last, cluster + int.from_bytes(head[1:3], signed=True))
            content.seek(size - len(head), 1)
        else:
            content.seek(size, 1)
    length = told or last
    return length * scale / 1e9 if length else None


def _number(content: IO[bytes], *, keep_marker: bool) -> int | None:
    """A number of EBML's variable length (RFC 8794); -1 for a size that is unknown, None at the end of the file."""
    first = content.read(1)
    if not first or first == b"\0":
        return None
    width = 9 - first[0].bit_length()
    rest = content.read(width - 1)
    if len(rest) < width - 1:
        return None
    whole = int.from_bytes(first + rest)
    if keep_marker:
        return whole
    value = whole & ((1 << 7 * width) - 1)
    return -1 if value == (1 << 7 * width) - 1 else value
