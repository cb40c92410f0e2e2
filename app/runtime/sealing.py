"""Secrets at rest: encrypted with the active encryption key, decrypted with whichever of the kept ones they name.

The cold side seals provider credentials before they reach the database or the directory; the hot side opens them in
memory. A sealed text is `<id of its key>:<Fernet token>`, and holds the name of the place that it belongs to: moved to another
row it cannot be opened. Fernet (AES-128-CBC with HMAC-SHA256) comes from the cryptography package.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

Keys = Sequence[bytes]


class SealingError(Exception):
    """No kept encryption key decrypts this text, or it belongs to another place."""


def key_id(key: bytes) -> str:
    """The name of an encryption key: 12 hexadecimal digits, from which the key cannot be told."""
    return hashlib.sha256(b"portico encryption key " + key).hexdigest()[:12]


def key_id_of(sealed: str) -> str | None:
    """The id of the key that sealed a text; None for one of an earlier version, which names no key."""
    id, separator, _ = sealed.partition(":")
    return id if separator else None


class Sealer:
    """Seals and opens with the deployment's encryption keys, the active one first.

    `read_keys` reads them anew: before something is sealed, and when a text names a key that is not known yet. So a process
    follows a rotation that another one carries out.
    """

    def __init__(self, keys: Keys, read_keys: Callable[[], Keys] | None = None) -> None:
        self._read_keys = read_keys or (lambda: keys)
        self._fernets: dict[str, Fernet] = {}  # those that have gone too: what lives for minutes still opens
        self._learn(keys)

    def _learn(self, keys: Keys) -> None:
        self._keys = tuple(keys)
        self._fernets |= {key_id(key): Fernet(key) for key in keys}
        self._all = MultiFernet([Fernet(key) for key in keys])

    def _read(self) -> None:
        try:
            keys = tuple(self._read_keys())
        except (OSError, ValueError) as error:
            raise SealingError(f"the encryption keys cannot be read: {error}") from None
        if keys != self._keys:
            self._learn(keys)

    def seal(self, plain: bytes, place: str) -> str:
        """Encrypt for `place`, such as `provider:<id>`."""
        self._read()
        id = key_id(self._keys[0])
        token = self._fernets[id].encrypt(place.encode() + b"\0" + plain)
        return f"{id}:{token.decode()}"

    def open(self, sealed: str, place: str) -> bytes:
        """Decrypt what was sealed for `place`. Raises `SealingError`."""
        id, separator, token = sealed.partition(":")
        try:
            if not separator:  # of an earlier version, which knew no places; the next rotation seals it anew
                return self._all.decrypt(sealed.encode())
            if id not in self._fernets:
                self._read()
            if id not in self._fernets:
                raise SealingError(f"the encryption key {id[:12]} of this secret is not there")
            found, _, plain = self._fernets[id].decrypt(token.encode()).partition(b"\0")
        except InvalidToken:
            raise SealingError("no kept encryption key opens this secret") from None
        if found != place.encode():
            raise SealingError("this secret was sealed for another place")
        return plain


def digest(pepper: bytes, bearer: str) -> str:
    """The digest under which a key or token is stored: HMAC-SHA256 with the deployment's pepper, hexadecimal."""
    return hmac.new(pepper, bearer.encode(), hashlib.sha256).hexdigest()
