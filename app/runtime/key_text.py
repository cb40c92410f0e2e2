"""The secret of an API key: `sk-`, 40 random characters, and a checksum of 6 that catches most typing errors.

The checksum lets the gateway refuse nonsense without reading Redis. It does not prove that a key is genuine.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib

PREFIX = "sk-"
DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM, CHECKSUM = 40, 6

_SHAPE = re.compile(rf"sk-[0-9A-Za-z]{{{RANDOM + CHECKSUM}}}")


def new_key() -> str:
    """Return a new secret with about 238 random bits."""
    body = "".join(secrets.choice(DIGITS) for _ in range(RANDOM))
    return PREFIX + body + _checksum(body)


def is_well_formed(text: str) -> bool:
    """Whether `text` has the shape of a key and the right checksum."""
    return bool(_SHAPE.fullmatch(text)) and _checksum(text[3 : 3 + RANDOM]) == text[3 + RANDOM :]


def _checksum(body: str) -> str:
    """CRC-32 of the body in base 62, 6 digits (62^6 is above 2^32)."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM):
        number, digit = divmod(number, 62)
        digits = DIGITS[digit] + digits
    return digits
