"""Secrets at rest: encrypted with the newest encryption key, decrypted with any configured one.

The cold side seals provider credentials before they reach the database or the directory; the hot side opens them in
memory. Fernet (AES-128-CBC with HMAC-SHA256) comes from the cryptography package.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class SealingError(Exception):
    """No configured encryption key decrypts this text."""


class Sealer:
    """Seals and opens with the deployment's encryption keys, newest first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, plain: bytes) -> str:
        return self._fernet.encrypt(plain).decode()

    def open(self, sealed: str) -> bytes:
        try:
            return self._fernet.decrypt(sealed.encode())
        except InvalidToken:
            raise SealingError("no kept encryption key opens this secret") from None


def digest(pepper: bytes, bearer: str) -> str:
    """The digest under which a key or token is stored: HMAC-SHA256 with the deployment's pepper, hexadecimal."""
    return hmac.new(pepper, bearer.encode(), hashlib.sha256).hexdigest()
