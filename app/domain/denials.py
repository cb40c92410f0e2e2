"""What /v1 denied, written into the audit log: the first of each kind at once, the others as one sum an hour.

The gateway counts (`app.gateway.denials`), within bounds; here it is found out whose a refused key was.
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
TURN = f"{store.DENIALS}:turn"
TURN_S = 60
HOURS_BACK = 24  # how long ago an hour may have been whose sums were not written down yet

_told = msgspec.json.Decoder(Told)
_denial = msgspec.json.Decoder(Denial)


def write_down() -> int:
    """Writes what is new, and the sums of hours that are over; how many entries. Raises `RedisError`.

    Cheap when nothing is due: one trip to Redis. One process at a time; what was written when it died is written again.
    """
    redis, hour = current.redis(), clock.now_ms() // HOUR_MS
    with redis.pipeline(transaction=False) as pipe:
        pipe.exists(store.DENIALS)
        pipe.exists(*(store.denials(before) for before in range(hour - HOURS_BACK, hour)))
        due = pipe.execute()
    if not any(due) or not redis.set(TURN, "1", nx=True, ex=TURN_S):
        return 0
    try:
        written = _write_firsts()
        for before in range(hour - HOURS_BACK, hour) if due[1] else ():
            written += _write_sums(before)
        return written
    finally:
        redis.delete(TURN)


def _write_firsts() -> int:
    redis = current.redis()
    found = redis.lrange(store.DENIALS, 0, AT_ONCE - 1)
    told = [_told.decode(raw) for raw in found]
    if told:
        transaction(_record_all, [(_denial.decode(one.kind), one.count, one.at_ms, 1) for one in told])
        redis.ltrim(store.DENIALS, len(told), -1)
    return len(told)


def _write_sums(hour: int) -> int:
    rest = list(_untold(hour))
    for start in range(0, len(rest), AT_ONCE):
        transaction(_record_all, rest[start : start + AT_ONCE])
    current.redis().delete(store.denials(hour))
    return len(rest)


_Sum = tuple[Denial, int, int, int]  # how often, since when (Unix ms) and within how many seconds


def _untold(hour: int) -> Iterator[_Sum]:
    """What is to be written of an hour that is over, beside the first of each kind."""
    for kind, kept in current.redis().hgetall(store.denials(hour)).items():
        told, total = str(kept).split(":")
        if int(total) > int(told):
            yield _denial.decode(kind), int(total) - int(told), hour * HOUR_MS, 3600


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
    """Id and name of the key or access token that a refused text is, and what is the matter with it."""
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
