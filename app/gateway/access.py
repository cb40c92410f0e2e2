"""Who is calling: a bearer text becomes a caller's record.

A key's own checksum turns typing errors away without a question to Redis; what Redis tells is believed for at
most half a second, so that a revoked key is refused everywhere within one.
"""

from __future__ import annotations

import time

import msgspec
from gevent.event import AsyncResult

from app import clock, store
from app.directory import CallerRecord
from app.gateway.errors import ApiError, bad_key, no_key, unavailable
from app.gateway.redis_wire import RedisAway, RedisWire
from app.runtime.key_text import is_well_formed
from app.runtime.sealing import digest

BELIEVED_S = 0.5
# How long after Redis went away its last word of a caller is trusted. What costs money waits for Redis all the same.
TRUSTED_S = 900.0
KEPT = 20_000
_record = msgspec.json.Decoder(CallerRecord)


class Access:
    """One process's memory of callers, and of the noticeboard's version as last seen beside them."""

    def __init__(self, wire: RedisWire, pepper: bytes) -> None:
        self._wire = wire
        self._pepper = pepper
        self._known: dict[str, tuple[float, CallerRecord | None]] = {}
        self._asking: dict[str, AsyncResult[CallerRecord | None]] = {}
        self.directory_version: str | None = None
        self._heard_at = 0.0  # when Redis last told of anybody

    def caller(self, bearer: str) -> CallerRecord:
        """The record behind `bearer`. Raises `ApiError` 401, or 503 when Redis can't tell."""
        if not bearer:
            raise no_key()
        now = time.monotonic()
        known = self._known.get(bearer)
        if known is None or known[0] < now:
            if bearer.startswith("sk-") and not is_well_formed(bearer) or len(bearer) > 4096 or not bearer.isascii():
                raise bad_key()
            known = (now + BELIEVED_S, self._told(bearer, known, now))
            if len(self._known) >= KEPT:
                self._known = {text: kept for text, kept in self._known.items() if kept[0] >= now}
                if len(self._known) >= KEPT:
                    self._known.clear()
            self._known[bearer] = known
        record = known[1]
        if record is None or (record.expires_ms is not None and record.expires_ms <= clock.now_ms()):
            raise bad_key(record)
        return record

    def _told(self, bearer: str, known: tuple[float, CallerRecord | None] | None, now: float) -> CallerRecord | None:
        """One question for all who come with the same text at once."""
        asking = self._asking.get(bearer)
        if asking is None:
            asking = self._asking[bearer] = AsyncResult()
            try:
                asking.set(self._ask_or_trust(bearer, known, now))
            except ApiError as error:
                asking.set_exception(error)
            except BaseException:  # whoever asks is stopped
                asking.set_exception(self._away())
                raise
            finally:
                del self._asking[bearer]
        record: CallerRecord | None = asking.get()
        return record

    def _ask_or_trust(
        self, bearer: str, known: tuple[float, CallerRecord | None] | None, now: float
    ) -> CallerRecord | None:
        """What Redis tells; while it is away, what it told of a caller a short time ago: they may use what is free."""
        try:
            return self._ask(bearer)
        except ApiError:
            if known is None or known[1] is None or now - self._heard_at > TRUSTED_S:
                raise
            return known[1]

    def _ask(self, bearer: str) -> CallerRecord | None:
        try:
            found, version = self._wire.call(
                "MGET", store.caller(digest(self._pepper, bearer)), store.DIRECTORY_VERSION
            )
        except RedisAway:
            raise self._away() from None
        if version is None:  # nothing is published, so nothing can be said about a key
            raise self._away()
        self.directory_version = version.decode()
        self._heard_at = time.monotonic()
        return _record.decode(found) if found is not None else None

    @staticmethod
    def _away() -> ApiError:
        return unavailable("The key store")
