"""Names given before anything starts: UUIDv7, so that ids sort by the time they were made.

RFC 9562, section 5.7: 48 bits of Unix milliseconds, then random bits.
"""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """A new UUIDv7 in its usual spelling, 36 characters."""
    bits = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
