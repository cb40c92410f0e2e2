"""An answer of an upstream whose bytes have all come, for exchanges to read without a socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from app.providers.http import Answer

PIECE = 16_384


class Canned:
    """What an exchange asks of an `Answer`. `pieces` are how it comes; a whole body comes in pieces of 16 KB."""

    def __init__(
        self, body: bytes = b"", kind: str = "application/json", pieces: Iterable[bytes | None] | None = None
    ) -> None:
        whole = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
        self._pieces: Iterator[bytes | None] = iter(whole if pieces is None else pieces)
        self._kind = kind
        self.finished = self.closed = False

    def header(self, name: str) -> str:
        assert name == "content-type"
        return self._kind

    def read(self) -> bytes:
        return next(self._pieces, b"") or b""

    def read_within(self, seconds: float) -> bytes | None:
        return next(self._pieces, b"")  # None among the pieces is a silence

    def read_all(self, most: int = 1 << 30, ends_by: float = 0.0) -> bytes:
        return b"".join(filter(None, self._pieces))

    def read_object(self, grace_s: float) -> bytes:
        return b"".join(filter(None, self._pieces))

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        self.closed = True

    @property
    def answer(self) -> Answer:
        return cast(Answer, self)
