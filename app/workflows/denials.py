"""Denials of /v1 in the audit log: the first of each kind immediately, the others as one count per hour.

The gateway counts them within bounds (`app.gateway.denials`); this module finds the owners of refused keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import select

from app import clock, current, store
from app.domain import audit
from app.domain.keys import ApiKey, KeySecret
from app.domain.person import Person
from app.domain.tokens import AccessToken
from app.extensions import db, transaction
from app.gateway.denials import HOUR_MS, Denial, Told

AT_ONCE = 200
TURN_S = 60
HOURS_BACK = 24  # how far back it looks for hours whose counts are not recorded yet

_first = msgspec.json.Decoder(Told)
_denial = msgspec.json.Decoder(Denial)


def write_down() -> int:
    """Record new denials, and the counts of past hours; return the number of audit entries. Raises `RedisError`.

    It costs one call to Redis if nothing is due. One process runs at a time; if it dies, its last entries can be recorded
    twice.
    """
    redis, hour = current.redis(), clock.now_ms() // HOUR_MS
    with redis.pipeline(transaction=False) as pipe:
        pipe.exists(store.DENIALS)
        pipe.exists(*(store.denials(before) for before in range(hour - HOURS_BACK, hour)))
        due = pipe.execute()
    if not any(due) or not redis.set(store.DENIALS_TURN, "1", nx=True, ex=TURN_S):
        return 0
    try:
        written = _write_firsts()
        for before in range(hour - HOURS_BACK, hour) if due[1] else ():
            written += _write_sums(before)
        return written
    finally:
        redis.delete(store.DENIALS_TURN)


def _write_firsts() -> int:
    redis = current.redis()
    found = redis.lrange(store.DENIALS, 0, AT_ONCE - 1)
    firsts = [_first.decode(raw) for raw in found]
    if firsts:
        transaction(_record_all, [(_denial.decode(one.kind), one.count, one.at_ms, 1) for one in firsts])
        redis.ltrim(store.DENIALS, len(firsts), -1)
    return len(firsts)


def _write_sums(hour: int) -> int:
    rest = list(_counts_of(hour))
    for start in range(0, len(rest), AT_ONCE):
        transaction(_record_all, rest[start : start + AT_ONCE])
    current.redis().delete(store.denials(hour))
    return len(rest)


_Sum = tuple[Denial, int, int, int]  # the number of denials, from when (Unix ms) and within how many seconds


def _counts_of(hour: int) -> Iterator[_Sum]:
    """The counts of a past hour, without the denials that were recorded immediately."""
    for kind, counts in current.redis().hgetall(store.denials(hour)).items():
        recorded, total = map(int, str(counts).split(":"))
        if total > recorded:
            yield _denial.decode(kind), total - recorded, hour * HOUR_MS, 3600


def _record_all(sums: Sequence[_Sum]) -> None:
    for denial, count, since_ms, span_s in sums:
        facts: dict[str, Any] = {"count": count, "since_ms": since_ms, "span_s": span_s}
        if denial.reason == "model":
            person = db.session.get(Person, denial.person_id) if denial.person_id else None
            facts |= {"reason": "model_not_found", "key_id": denial.caller_id, "key": denial.caller}
            audit.record(person, "model.refuse", "model", denial.model or "others", name=denial.model, facts=facts)
        else:
            id, name, reason = _whose(denial.digest)
            facts |= {"reason": reason, "last4": denial.last4}
            audit.record(None, "key.refuse", "key", id, name=name, facts=facts)


def _whose(digest: str | None) -> tuple[str, str | None, str]:
    """The id and name of a refused key or access token, and why it was refused."""
    if digest is None:
        return "others", None, "unknown"
    secret = db.session.execute(
        select(KeySecret, ApiKey).join(ApiKey, ApiKey.id == KeySecret.key_id).where(KeySecret.digest == digest)
    ).first()
    if secret is not None:
        text, key = secret
        return key.id, key.name, "replaced" if text.has_ended and key.status == "active" else key.status
    token = db.session.scalar(select(AccessToken).where(AccessToken.digest == digest))
    if token is not None:
        return token.id, f"access token of {token.person.username}", "revoked" if token.revoked_at else "expired"
    return digest[:8], None, "unknown"
