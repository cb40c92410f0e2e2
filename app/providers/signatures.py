"""Signatures of calls, kept for clients that give back a call without what came with it.

A signature is a kilobyte that only its upstream understands; most clients of OpenAI's dialect drop it. They are kept in this
process alone and for as long as there is room, since an upstream can do without.
"""

from __future__ import annotations

from collections import OrderedDict

MOST_BYTES = 16 << 20
LONGEST = 64 << 10


class Signatures:
    """Signatures by the ids of calls, the newest of them."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._kept: OrderedDict[str, str] = OrderedDict()
        self._most = most_bytes
        self._size = 0

    def keep(self, id: str, signature: str) -> None:
        if len(signature) > LONGEST:
            return
        self._size += len(signature) - len(self._kept.pop(id, ""))
        self._kept[id] = signature
        while self._size > self._most:
            _, oldest = self._kept.popitem(last=False)
            self._size -= len(oldest)

    def of(self, id: str) -> str | None:
        return self._kept.get(id)
