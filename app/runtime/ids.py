"""Ids: UUIDv7, so that they sort by the time they were created.

RFC 9562, section 5.7: 48 bits of Unix milliseconds, 12 bits of the millisecond's fraction (section 6.2, method 3, which
keeps the order of one process), then 62 random bits.
"""

from __future__ import annotations

import os
import re

from app import clock

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_id() -> str:
    """Return a new UUIDv7 in its usual spelling, 36 characters."""
    milliseconds, nanoseconds = divmod(clock.now_ns(), 1_000_000)
    fraction = (nanoseconds << 12) // 1_000_000
    random = int.from_bytes(os.urandom(8), "big") >> 2
    text = f"{milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | random:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def moment_of(id: str) -> int | None:
    """Return when a UUIDv7 was created, Unix ms; None for any other text."""
    return int(id[:8] + id[9:13], 16) if _UUID7.fullmatch(id) else None
